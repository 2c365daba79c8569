"""What `sanction` does: files an offence, withdraws it, or lists what is filed and whether a
settlement carries it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.chain.home_runs import certificates_of, run_folder
from daemon.chain.offences import FiledOffence, account_of, file_offence, filed_offences, withdraw
from daemon.cli.chain.access import access
from daemon.cli.invocation import Invocation
from protocol.errors import UserError
from protocol.status.figures import count


class SanctionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one call."""

    who: str | None = None
    reason: str | None = None
    evidence: Path | None = None
    samples: int = 0
    withdraw: str | None = None
    run_id: str | None = None


def sanction(talk: Invocation, wish: SanctionOptions) -> None:
    """Raises `UserError`."""
    run = access(talk, wish.run_id).run
    folder = run_folder(talk.home, run.run)
    if wish.withdraw is not None:
        _show(talk, withdraw(folder, wish.withdraw), "withdrawn")
        return
    if wish.who is None:
        _show(talk, filed_offences(folder), "filed")
        return
    if not wish.reason or wish.evidence is None:
        raise UserError(
            "SANCTION",
            "An offence needs a reason and evidence.",
            why="whoever loses money by it must be able to see why",
            fix="hypergpud sanction WHO --reason TEXT --evidence FILE [--samples N]",
            exit_code=2,
        )
    known = [] if wish.who.startswith("0x") else certificates_of(talk.home, run, talk.say)
    account = account_of(wish.who, run.manifest, known)
    made = file_offence(talk.home, folder, account, wish.reason, wish.evidence, wish.samples)
    _show(talk, [made], "filed")
    talk.say("The next hypergpud settle carries it.")


def _show(talk: Invocation, offences: list[FiledOffence], what: str) -> None:
    if talk.as_json:
        talk.result(msgspec.json.encode(offences).decode())
        return
    lines = [
        f"{one.account}  {count(one.samples)} samples  {one.reason}  (evidence {one.evidence[:12]}, {what})"
        for one in offences
    ]
    talk.result("\n".join(lines) or "Nothing is filed.")
