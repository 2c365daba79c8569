"""`rewards`, `rewards verify` and `rewards claim`: what an account earned, and its payment."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from daemon.chain import rewards as money
from daemon.chain.amounts import parse_tokens
from daemon.chain.settlement import RootCheck
from daemon.cli.chain.access import open_for_reading, open_for_signing, run_access, unlock_wallet
from daemon.cli.chain.options import account_option, account_or_own, password_file, run_option
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import global_options, invocation_of
from protocol.status.figures import count, duration, tokens


@click.group(cls=CommandGroup, invoke_without_command=True)
@run_option
@account_option
@global_options(hidden=True)
@click.pass_context
def rewards(context: click.Context, run_id: str | None, account: str | None) -> None:
    """Show, verify and claim what this node earned.

    Without a subcommand: show what is earned, claimable and claimed.
    """
    if context.invoked_subcommand is not None:
        return
    invocation = invocation_of(context)
    access = run_access(invocation, run_id)
    who = account_or_own(invocation.home, account)
    with open_for_reading(invocation, access) as chain:
        found = money.rewards_of(chain, invocation.home, access.run, who, invocation.say)
    invocation.result(
        msgspec.json.encode(found).decode() if invocation.as_json else _rewards_text(found)
    )


@rewards.command()
@run_option
@global_options(hidden=True)
@click.pass_context
def verify(context: click.Context, run_id: str | None) -> int:
    """Compute the reward root from this home's certificates and compare it with the chain's.

    The exit code is 1 where they differ.
    """
    invocation = invocation_of(context)
    access = run_access(invocation, run_id)
    with open_for_reading(invocation, access) as chain:
        checks = money.verify(chain, invocation.home, access.run, invocation.say)
    invocation.result(
        msgspec.json.encode(checks).decode()
        if invocation.as_json
        else "\n".join(_check_text(check) for check in checks)
    )
    return 0 if all(check.agrees for check in checks) else 1


@rewards.command()
@click.option("--dry-run", is_flag=True, help="Show what would be claimed; send nothing.")
@click.option(
    "--at-least",
    "threshold",
    metavar="TOKENS",
    default="0",
    help="Claim only if at least this amount is claimable: each claim costs a fee.",
)
@run_option
@account_option
@password_file
@global_options(hidden=True)
@click.pass_context
def claim(
    context: click.Context,
    dry_run: bool,
    threshold: str,
    run_id: str | None,
    account: str | None,
    password_file: Path | None,
) -> None:
    """Claim what is claimable; it is paid to the payout address.

    The account's own wallet sends the claim, or the wallet of the sponsor that it approved.
    """
    invocation = invocation_of(context)
    access = run_access(invocation, run_id)
    who = account_or_own(invocation.home, account)
    least = parse_tokens(threshold)
    if dry_run:
        with open_for_reading(invocation, access) as chain:
            claimed = money.claim(chain, invocation.home, who, dry_run=True, threshold=least)
    else:
        wallet = unlock_wallet(invocation, password_file)
        with open_for_signing(invocation, access, wallet) as chain:
            claimed = money.claim(
                chain, invocation.home, who, dry_run=False, threshold=least, tell=invocation.say
            )
    if invocation.as_json:
        invocation.result(msgspec.json.encode(claimed).decode())
    else:
        invocation.result(_claim_text(claimed, least))


def _rewards_text(found: money.Rewards) -> str:
    lines = [
        f"account    {found.account}",
        f"payout     {found.payout}"
        + ("  (the account itself)" if found.payout == found.account else ""),
        f"claimable  {tokens(int(found.claimable))}"
        + ("  to claim: hypergpud rewards claim" if int(found.claimable) else ""),
        f"claimed    {tokens(int(found.claimed))}",
        f"earned     {tokens(int(found.earned))}"
        + (
            f"  up to epoch {found.active_epoch}"
            if found.active_epoch >= 0
            else "  no root is active yet"
        ),
    ]
    if int(found.pending):
        wait_s = found.pending_at_s - time.time()
        lines.append(
            f"pending    {tokens(int(found.pending))}  "
            + (f"in {duration(wait_s)}" if wait_s > 0 else "once anyone activates it")
        )
    if int(found.locked):
        lines.append(f"locked     {tokens(int(found.locked))}")
    if found.certified:
        lines.append(f"certified  {count(found.certified)} samples that wait for a settlement")
    if found.served_tokens:
        lines.append(
            f"served     {count(found.served_tokens)} tokens of {count(found.served_answers)}"
            " answers, by this home's stages and with their clients' receipts"
        )
    for one in sorted(found.sanctions, key=lambda each: each.account != found.account):
        whose = "yours" if one.account == found.account else one.account
        lines.append(
            f"sanction   {whose}: {one.step} in epoch {one.epoch}, {one.state}: {one.reason}"
            f" (evidence {one.evidence[:12]})"
        )
    if found.note:
        lines.append(f"note       {found.note}")
    return "\n".join(lines)


def _check_text(check: RootCheck) -> str:
    mark = "✓ agrees" if check.agrees else "✕ DIFFERS"
    lines = [
        f"epoch {check.epoch} ({check.state}): {mark}: {check.reason}",
        f"  on the chain  0x{check.root}, {tokens(check.total)} in all",
    ]
    if not check.agrees:
        lines.append(f"  computed      {'0x' + check.computed if check.computed else 'nothing'}")
        lines.append("  a settler can dispute a pending root: hypergpud settle --dispute REASON")
    return "\n".join(lines)


def _claim_text(claimed: money.Claimed, threshold: int) -> str:
    amount = int(claimed.amount)
    if not claimed.sent:
        if amount and amount >= threshold:
            return f"Dry run: would claim {tokens(amount)} to {claimed.payout}; nothing sent."
        return f"Nothing to claim: {claimed.reason}."
    if not claimed.reason.startswith("paid"):
        return f"Sent {claimed.transaction}: {claimed.reason}."
    return (
        f"{tokens(amount)} paid to {claimed.payout}"
        f" ({claimed.reason}; fee {tokens(int(claimed.fee))}, {claimed.transaction})."
    )
