"""`settle`, for a settler: proposes, activates or disputes a root, and fills the reward pool."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from daemon.chain.amounts import parse_tokens
from daemon.cli.arguments import PATH
from daemon.cli.chain.access import (
    RunAccess,
    open_for_reading,
    open_for_signing,
    run_access,
    unlock_wallet,
)
from daemon.cli.chain.options import password_file, run_option
from daemon.cli.chain.settlement_proposal import (
    SettleOptions,
    SettleResult,
    plain_result,
    propose,
    send_and_wait,
)
from daemon.cli.invocation import Invocation, global_options, invocation_of
from protocol.chain.port import Chain
from protocol.errors import UserError
from protocol.status.figures import tokens


@click.command()
@click.option(
    "--epoch",
    type=click.IntRange(min=0),
    help="The epoch to settle. Default: the last one that is over.",
)
@click.option(
    "--pool",
    metavar="TOKENS",
    help="What the epoch pays out. Default: all that the pool has not allocated.",
)
@click.option(
    "--like",
    type=PATH,
    metavar="FILE",
    help="Agree to the data set that another settler published, if it is right.",
)
@click.option("--dispute", metavar="REASON", help="Drop the pending root; the active one stays.")
@click.option(
    "--root",
    metavar="HASH",
    help="With --dispute: the beginning of the root to drop. No other root is dropped.",
)
@click.option(
    "--fund",
    metavar="TOKENS",
    help="Put this amount of this wallet into the pool. It is only paid out as rewards.",
)
@click.option("--dry-run", is_flag=True, help="Compute and show; send nothing.")
@run_option
@password_file
@global_options(hidden=True)
@click.pass_context
def settle(
    context: click.Context,
    epoch: int | None,
    pool: str | None,
    like: Path | None,
    dispute: str | None,
    root: str | None,
    fund: str | None,
    dry_run: bool,
    run_id: str | None,
    password_file: Path | None,
) -> None:
    """Propose the reward root of an epoch (for settlers).

    The data set of the root is published under its hash. A pending root whose delay is over is
    activated first.

    Anyone may activate a root, and anyone may use --fund, which settles nothing.
    """
    invocation = invocation_of(context)
    if root is not None and dispute is None:
        raise UserError(
            "USAGE",
            "--root names the root that --dispute drops.",
            why="without --dispute this command would propose a root",
            fix="hypergpud settle --dispute REASON --root HASH",
            exit_code=2,
        )
    access = run_access(invocation, run_id)
    options = SettleOptions(
        epoch=epoch,
        pool=None if pool is None else parse_tokens(pool),
        like=like,
        dispute=dispute,
        root=root,
        fund=None if fund is None else parse_tokens(fund),
        dry_run=dry_run,
    )
    if options.fund is not None:
        _fund(invocation, access, options.fund, dry_run, password_file)
    elif dry_run:
        with open_for_reading(invocation, access) as chain:
            _show(invocation, propose(invocation, access, chain, options))
    else:
        wallet = unlock_wallet(invocation, password_file)
        with open_for_signing(invocation, access, wallet) as chain:
            _show(invocation, _settle(invocation, access, chain, options))


def _settle(
    invocation: Invocation, access: RunAccess, chain: Chain, options: SettleOptions
) -> SettleResult:
    if options.dispute is not None:
        return _dispute(chain, options.dispute, options.root)
    status = chain.pool()
    pending = status.pending
    if pending is not None and chain.head().at_s >= status.ready_at_s:
        send_and_wait(chain, chain.activate())
        invocation.say(f"Epoch {pending.epoch} is active: claims are open.")
        if pending.epoch >= status.epoch - 1 and options.epoch is None and options.like is None:
            return plain_result("activated", pending, "claims are open")
    return propose(invocation, access, chain, options)


def _fund(
    invocation: Invocation,
    access: RunAccess,
    amount: int,
    dry_run: bool,
    password_file: Path | None,
) -> None:
    with open_for_signing(invocation, access, unlock_wallet(invocation, password_file)) as chain:
        if not dry_run:
            send_and_wait(chain, chain.fund(amount))
        balance = chain.pool().balance
    if invocation.as_json:
        shown = {"funded": str(0 if dry_run else amount), "pool": str(balance)}
        invocation.result(msgspec.json.encode(shown).decode())
        return
    done = (
        f"Dry run: would put {tokens(amount)} into the pool; nothing sent"
        if dry_run
        else f"{tokens(amount)} put into the pool"
    )
    invocation.result(f"{done}. The pool holds {tokens(balance)}.")


def _dispute(chain: Chain, reason: str, root: str | None) -> SettleResult:
    """Drop the pending root. `root` None: whichever root is pending now."""
    pending = chain.pool().pending
    if pending is None:
        raise UserError("NOTHING", "No root is pending, so there is nothing to dispute.")
    if root is not None and not _begins(pending.root, root):
        raise UserError(
            "ROOT",
            f"The pending root is not {root!r}.",
            why=f"epoch {pending.epoch} has {pending.root.hex()} pending;"
            " another root may have been disputed and corrected meanwhile",
            fix="hypergpud rewards verify, to see whether that root is right",
        )
    send_and_wait(chain, chain.dispute(pending, reason, pending.data))
    return plain_result("disputed", pending, "the last active root stays in force")


def _begins(whole: bytes, named: str) -> bool:
    digits = named.lower().removeprefix("0x")
    return bool(digits) and whole.hex().startswith(digits)


def _show(invocation: Invocation, result: SettleResult) -> None:
    if invocation.as_json:
        invocation.result(msgspec.json.encode(result).decode())
        return
    lines = [
        f"epoch {result.epoch}: {result.done}, {result.reason}",
        f"  root      0x{result.root}, {tokens(int(result.total))} in all",
    ]
    if result.accounts:
        lines.append(f"  pool      {tokens(int(result.pool))} in this epoch")
        lines += [
            f"  {account}  {tokens(int(amount))}" for account, amount in result.accounts.items()
        ]
    lines += [f"  sanction  {line}" for line in result.sanctions]
    lines += [f"  withheld  {line}" for line in result.withheld]
    lines.append(f"  data set  {result.dataset}")
    invocation.result("\n".join(lines))
