"""Sets aside the files of a run that cannot be read, so that the run's members send them again.

A node that cannot read its certificates stops (`daemon/disk/file_disk.py`): it would start anew and
overwrite its checkpoints. `repair` renames each such file to `....damaged` and deletes nothing.
The remaining files fit together: certificates without a gap, and checkpoints and a ledger that
belong to one of them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from daemon.disk.atomic import no_fault, set_aside
from daemon.disk.chain_file import ChainFile, write_chain
from daemon.disk.checkpoint_file import checkpoints_in, read_checkpoint
from daemon.disk.ledger_file import read_ledger
from daemon.disk.run_folder import (
    CERTIFICATES,
    CHECKPOINTS,
    HELD,
    LEDGER,
    LEDGER_MARK,
    VIEW_RECORDS,
)
from daemon.disk.slots_file import SlotsFile
from daemon.disk.tensors import DamagedFile
from daemon.swarm.chain_sync import unpack_record
from daemon.swarm.lineage import Lineage
from protocol.averaging.outer_step import state_digest
from protocol.certificates.certificate import hash_of, open_certificate, parents_of
from protocol.certificates.tip import Tip, decode_tip
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.run.manifest import SignedManifest


def repair(folder: Path, signed: SignedManifest) -> list[str]:
    """Set aside the unusable files of a run's folder. No other process may write there.

    Returns a sentence for each file that was set aside. Raises `DiskFull`.
    """
    sentences: list[str] = []
    run, certified = signed.run, signed.open().engine != "hivemind"
    states = _certificates(folder, signed, sentences) if certified else {}
    _checkpoints(folder / CHECKPOINTS, run, states if certified else None, sentences)
    _ledger(folder / LEDGER, run, states if certified else None, sentences)
    _slots(folder / VIEW_RECORDS, "view records", sentences)
    _slots(folder / LEDGER_MARK, "figures of the ledger's mark", sentences)
    _slots(folder / HELD, "times of adoption", sentences)
    return sentences


def _newest_tip(directory: Path, run: Digest) -> Tip | None:
    """Return the tip of the newest checkpoint that can be read."""
    try:
        kept = checkpoints_in(directory)
    except OSError:
        # `_checkpoints` reports it.
        return None
    for entry in reversed(kept):
        with suppress(FileNotFoundError, DamagedFile):
            return decode_tip(read_checkpoint(entry.path, run, entry.tip, entry.number).stood)
    return None


def _certificates(
    folder: Path, signed: SignedManifest, sentences: list[str]
) -> dict[Digest, Digest]:
    """Keep the certificates that follow from each other, and return the state that each names.

    The states are by the certificate's hash. The first certificate follows from genesis or from the
    newest checkpoint's tip: certificates from other members need not reach back to genesis.
    """
    path = folder / CERTIFICATES
    stood = _newest_tip(folder / CHECKPOINTS, signed.run)
    # Up to this number, the certificates follow from ones that this node does not have.
    behind = 0
    chain = ChainFile(path, no_fault, lambda _: None)
    lineage = Lineage(signed.run, signed.open())
    # The state of genesis follows from the manifest, so it has no digest here.
    states: dict[Digest, Digest] = {signed.run: b""}
    good: list[tuple[int, bytes]] = []
    why = chain.damage
    for number, body in chain.records():
        try:
            raws = unpack_record(body)
            gap = any(lineage.tip(parent) is None for raw in raws[:1] for parent in parents_of(raw))
            if gap and stood is not None and lineage.tip(stood.hash) is None:
                lineage.adopt(stood)
                states[stood.hash], behind = stood.state, stood.number
            for raw in raws:
                if number <= behind:
                    opened = open_certificate(raw, signed.run, signed.open(), None, trusted=True)
                    states[opened.hash] = opened.outcome.state
                    continue
                lineage.add(raw, trusted=True)
                made = lineage.entry(hash_of(signed.run, raw))
                if made is None:
                    raise PeerFault("bad_certificate", "its parent is not among those before it")
                states[made.tip.hash] = made.tip.state
        except PeerFault as fault:
            why = f"certificate {number} does not read back: {fault}"
            break
        good.append((number, body))
    if why:
        sentences.append(
            f"Certificates: {why}. Those up to number {good[-1][0] if good else 0} stay."
            f" Set aside: {set_aside(path)}"
        )
        write_chain(path, good)
    return states


def _checkpoints(
    directory: Path, run: Digest, states: dict[Digest, Digest] | None, sentences: list[str]
) -> None:
    """Set aside the checkpoints that are damaged, or that no certificate names.

    `states` are by tip; None for an engine without certificates.
    """
    try:
        kept = checkpoints_in(directory)
    except OSError as error:
        sentences.append(
            f"Checkpoints cannot be read ({error.strerror}). Set aside: {set_aside(directory)}"
        )
        return
    for entry in kept:
        try:
            whole = read_checkpoint(entry.path, run, entry.tip, entry.number)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            why = str(error)
        else:
            if states is None:
                continue
            state = states.get(entry.tip)
            if state is None:
                why = "belongs to a certificate that is not on disk"
            elif state and state_digest(whole.anchor, whole.momentum) != state:
                why = "does not have the state that its certificate names"
            else:
                continue
        sentences.append(f"Checkpoint {entry.number} {why}. Set aside: {set_aside(entry.path)}")


def _ledger(
    path: Path, run: Digest, states: dict[Digest, Digest] | None, sentences: list[str]
) -> None:
    try:
        tip = read_ledger(path, run).tip
    except FileNotFoundError:
        return
    except DamagedFile as error:
        why = str(error)
    else:
        if states is None or tip in states:
            return
        why = "belongs to a certificate that is not on disk"
    sentences.append(f"The ledger, which holds pending work, {why}. Set aside: {set_aside(path)}")


def _slots(path: Path, what: str, sentences: list[str]) -> None:
    damage: list[str] = []
    slots = SlotsFile(path, no_fault, damage.append)
    if slots.unreadable or damage:
        why = f"cannot be read ({slots.unreadable})" if slots.unreadable else "are damaged"
        sentences.append(f"The {what} {why}. Set aside: {set_aside(path)}")
