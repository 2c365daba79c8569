"""Signs where the owner's run goes on, and keeps that record in the owner's home."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from daemon.home.owned_run import OwnedRun
from daemon.home.run_membership import add_owner_record, load_owner_records
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.messages.envelope import sign
from protocol.messages.membership import MAX_VOTERS, Recovery


def sign_recovery(
    home: Path, owned: OwnedRun, tip: Digest, number: int, voters: Iterable[PeerId]
) -> Recovery:
    """Sign a recovery with the next serial, and keep it in the home.

    Args:
        home: the owner's home.
        owned: the run and its owner.
        tip: the certificate from which the run goes on; the run id for its beginning.
        number: its number.
        voters: who votes then. Peers that the owner revoked are left out.

    Raises:
        UserError: "VOTERS" where nobody would vote.
        DiskFull: where the home cannot be written.
    """
    records = load_owner_records(home, owned.signed)
    named = [peer for peer in dict.fromkeys(voters) if peer not in records.revoked][:MAX_VOTERS]
    if not named:
        raise UserError(
            "VOTERS",
            "Nobody would vote in this run.",
            why="no peer was named that the owner has not revoked",
            fix="hypergpud run recover --voter PEER",
            exit_code=2,
        )
    message = Recovery(
        serial=records.next_serial, tip=tip, number=number, voters=tuple(sorted(named))
    )
    add_owner_record(home, owned.signed, sign(owned.signer, owned.signed.run, message))
    return message
