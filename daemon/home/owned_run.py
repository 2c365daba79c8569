"""The run that the owner of this home gives commands for."""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.chain.home_runs import opened_record, run_folder
from daemon.disk.atomic import no_fault
from daemon.disk.chain_file import ChainFile
from daemon.home.node_key import load_or_make_key
from daemon.home.recent_state import chosen_run, kept_manifest
from protocol.digest import Digest
from protocol.errors import PeerFault, UserError
from protocol.identity import Signer, short
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest
from protocol.text.printable import printable


class OwnedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of this home, and the key of its owner, which is this home's node key."""

    signed: SignedManifest
    signer: Signer


def owned_run(home: Path, named: Path | None, does: str) -> OwnedRun:
    """Return a run of this home that this home owns; by default the last one.

    `does` says what only the owner does, as in "invites others".

    Raises:
        UserError: "RUN" for an unknown run, "RULES" for a run of rules without votes, "NOT_OWNER"
            where another peer owns the run, or none.
    """
    signed = chosen_run(home, str(named) if named is not None else None)
    manifest = signed.open()
    name = printable(manifest.name)
    if manifest.rules < RULES_4:
        raise UserError(
            "RULES",
            f"The run {name!r} has rules {manifest.rules}, which know neither owners' records nor "
            "invitations.",
            why=f"rules {RULES_4} are the first with votes",
            fix="begin a new run: hypergpud start --run FILE",
            exit_code=2,
        )
    signer, _ = load_or_make_key(home)
    if manifest.owner != signer.peer:
        owner = f"the owner is {short(manifest.owner)}" if manifest.owner else "it has no owner"
        raise UserError(
            "NOT_OWNER",
            f"Only the owner of the run {name!r} {does}.",
            why=f"this home has the key of {short(signer.peer)}, and {owner}",
            fix="type the command in the owner's home, or ask the owner",
            exit_code=2,
        )
    return OwnedRun(signed=signed, signer=signer)


def last_certificate(home: Path, run: Digest) -> Digest:
    """Return the newest certificate of a run on disk; the genesis where there is none."""
    signed = kept_manifest(home, run)
    if signed is None:
        return run
    chain = ChainFile(run_folder(home, run) / "certificates", no_fault, lambda _: None)
    records = chain.read(chain.last, 1) if chain.last else []
    try:
        opened = [one for record in records for one in opened_record(record, run, signed.open())]
    except PeerFault:
        return run
    return opened[-1].hash if opened else run
