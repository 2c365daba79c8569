"""`repair`: sets unreadable files of a run aside, so that the next start fetches them."""

from __future__ import annotations

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.home.layout import ensure_home
from daemon.home.lock import home_lock
from protocol.errors import UserError
from protocol.ports.disk import DiskFull


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `repair --json` prints."""

    run: str
    set_aside: list[str]


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@global_options(hidden=True)
@click.pass_context
def repair(context: click.Context, run: str | None) -> None:
    """Set damaged files of a run aside, to be fetched again.

    The next start fetches them from the members of the run. Nothing is deleted. RUN is the
    beginning of a run's id. Default: the run that this home was in last.
    """
    # numpy and the protocol take a while; a mistake in the options does not wait for them.
    from daemon.chain.home_runs import run_folder  # noqa: PLC0415
    from daemon.home import run_repair as work  # noqa: PLC0415
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from protocol.digest import SHOWN_DIGITS  # noqa: PLC0415
    from protocol.rules.versions import check_rules  # noqa: PLC0415

    invocation = invocation_of(context)
    ensure_home(invocation.home)
    with home_lock(invocation.home, invocation.say):
        signed = chosen_run(invocation.home, run)
        shown = signed.run.hex()[:SHOWN_DIGITS]
        check_rules(signed.open().rules, shown)
        try:
            said = work.repair(run_folder(invocation.home, signed.run), signed)
        except DiskFull as full:
            raise UserError(
                "DISK_FULL",
                "Cannot repair the run.",
                why=str(full),
                fix="free some disk space, then try again",
            ) from None
    if invocation.as_json:
        invocation.result(
            msgspec.json.encode(RepairResult(run=signed.run.hex(), set_aside=said)).decode()
        )
        return
    for sentence in said:
        invocation.result(sentence)
    name = signed.open().name
    if said:
        invocation.result(
            f"Nothing was deleted. hypergpud start --run {shown} fetches certificates and state of"
            f" {name} from its members."
        )
    else:
        invocation.result(f"No file of the run {name} ({shown}) is damaged.")
