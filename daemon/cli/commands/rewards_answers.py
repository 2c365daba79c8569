"""What the `rewards` commands print: money as text or as the JSON of its records."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from daemon.chain import rewards as money
from daemon.chain.amounts import parse_tokens
from daemon.chain.settlement import RootCheck
from daemon.cli.chain.access import access, reading, signing, unlocked
from daemon.cli.invocation import Invocation
from daemon.wallet import files
from protocol.chain.keccak import Address, checked_address
from protocol.errors import UserError
from protocol.status.figures import count, duration, tokens


def show(talk: Invocation, run_id: str | None, account: str | None) -> None:
    """Raises `UserError`."""
    given = access(talk, run_id)
    who = _account(talk.home, account)
    with reading(talk, given) as chain:
        found = money.rewards_of(chain, talk.home, given.run, who, talk.say)
    talk.result(msgspec.json.encode(found).decode() if talk.as_json else _rewards_text(found))


def verify(talk: Invocation, run_id: str | None) -> int:
    """0, or 1 where a root does not follow from the certificates. Raises `UserError`."""
    given = access(talk, run_id)
    with reading(talk, given) as chain:
        checks = money.verify(chain, talk.home, given.run, talk.say)
    talk.result(
        msgspec.json.encode(checks).decode()
        if talk.as_json
        else "\n".join(_check_text(check) for check in checks)
    )
    return 0 if all(check.agrees for check in checks) else 1


def claim(
    talk: Invocation,
    run_id: str | None,
    account: str | None,
    *,
    dry_run: bool,
    threshold: str,
    password_file: Path | None,
) -> None:
    """Raises `UserError`."""
    given = access(talk, run_id)
    who = _account(talk.home, account)
    least = parse_tokens(threshold)
    if dry_run:
        with reading(talk, given) as chain:
            answer = money.claim(chain, talk.home, who, dry_run=True, threshold=least)
    else:
        wallet = unlocked(talk, password_file)
        with signing(talk, given, wallet) as chain:
            answer = money.claim(
                chain, talk.home, who, dry_run=False, threshold=least, tell=talk.say
            )
    talk.result(msgspec.json.encode(answer).decode() if talk.as_json else _claim_text(answer))


def _account(home: Path, named: str | None) -> Address:
    if named is None:
        return files.address_in_home(home)
    try:
        return checked_address(named)
    except ValueError as error:
        raise UserError(
            "ADDRESS", f"{named!r} is no address.", why=str(error), exit_code=2
        ) from None


def _rewards_text(found: money.Rewards) -> str:
    lines = [
        f"account    {found.account}",
        f"payout     {found.payout}"
        + ("  (the account itself)" if found.payout == found.account else ""),
        f"claimable  {tokens(int(found.claimable))}"
        + ("  hypergpud rewards claim" if int(found.claimable) else ""),
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
    for one in sorted(found.sanctions, key=lambda each: each.account != found.account):
        whose = "yours" if one.account == found.account else one.account
        lines.append(
            f"sanction   {whose}: {one.step} in epoch {one.epoch}, {one.state}: {one.reason} (evidence {one.evidence[:12]})"
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


def _claim_text(answer: money.Claimed) -> str:
    if not answer.sent:
        return (
            f"Nothing was sent: {answer.reason}."
            if not int(answer.amount)
            else f"{tokens(int(answer.amount))} claimable: {answer.reason}."
        )
    if answer.reason == "not settled yet; rewards shows when it is":
        return f"Sent {answer.transaction}: {answer.reason}."
    return f"{tokens(int(answer.amount))} paid to {answer.payout} ({answer.reason}; fee {tokens(int(answer.fee))}, {answer.transaction})."
