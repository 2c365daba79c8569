"""What of a run cannot be read is set aside, so that the run's members give it again.

A node that cannot read what it certified stops (`daemon/disk/file_disk.py`): it would begin anew over
its own checkpoints. `repair` gives each such file another name, `....damaged`, beside its own, and
deletes nothing. What is left fits together: certificates without a gap, and checkpoints and a
ledger that stand on one of them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from daemon.disk.atomic import no_fault, set_aside
from daemon.disk.chain_file import ChainFile, write_chain
from daemon.disk.checkpoint_file import checkpoints_in, read_checkpoint
from daemon.disk.ledger_file import read_ledger
from daemon.disk.run_folder import CERTIFICATES, CHECKPOINTS, LEDGER, VIEW_RECORDS
from daemon.disk.slots_file import SlotsFile
from daemon.disk.tensors import DamagedFile
from daemon.swarm.chain_sync import unpack_record
from daemon.swarm.lineage import Lineage
from protocol.averaging.outer_step import state_digest
from protocol.certificates.certificate import Tip, decode_tip, hash_of, open_certificate, parents_of
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.run.manifest import SignedManifest


def repair(folder: Path, signed: SignedManifest) -> list[str]:
    """Set aside what cannot be used in a run's folder. Nobody else may write there meanwhile.

    Returns a sentence for each file; none where everything can be read. Raises `DiskFull`.
    """
    said: list[str] = []
    run, certified = signed.run, signed.open().engine != "hivemind"
    states = _certificates(folder, signed, said) if certified else {}
    _checkpoints(folder / CHECKPOINTS, run, states if certified else None, said)
    _ledger(folder / LEDGER, run, states if certified else None, said)
    _stands(folder / VIEW_RECORDS, said)
    return said


def _stood(directory: Path, run: Digest) -> Tip | None:
    """The tip of the newest checkpoint that can be read."""
    try:
        kept = checkpoints_in(directory)
    except OSError:
        return None  # `_checkpoints` says so
    for entry in reversed(kept):
        with suppress(FileNotFoundError, DamagedFile):
            return decode_tip(read_checkpoint(entry.path, run, entry.tip, entry.number).stood)
    return None


def _certificates(folder: Path, signed: SignedManifest, said: list[str]) -> dict[Digest, Digest]:
    """The state that each certificate names, by the certificate's hash, for those that can be read
    and follow from each other.

    Or from the newest checkpoint's tip: what a node got from others need not reach back to genesis
    (`Keeper._read_chain`).
    """
    path = folder / CERTIFICATES
    stood = _stood(folder / CHECKPOINTS, signed.run)
    # Up to this number certificates are read, and follow from what is not here.
    behind = 0
    chain = ChainFile(path, no_fault, lambda _: None)
    lineage = Lineage(signed.run, signed.open())
    states: dict[Digest, Digest] = {signed.run: b""}  # of genesis: it follows from the manifest
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
        said.append(
            f"Certificates: {why}. Those up to number {good[-1][0] if good else 0} stay. Set aside: {set_aside(path)}"
        )
        write_chain(path, good)
    return states


def _checkpoints(
    directory: Path, run: Digest, states: dict[Digest, Digest] | None, said: list[str]
) -> None:
    """`states` by tip; None for an engine that certifies nothing."""
    try:
        kept = checkpoints_in(directory)
    except OSError as error:
        said.append(
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
                why = "stands on a certificate that is not on disk"
            elif state and state_digest(whole.anchor, whole.momentum) != state:
                why = "does not have the state that its certificate names"
            else:
                continue
        said.append(f"Checkpoint {entry.number} {why}. Set aside: {set_aside(entry.path)}")


def _ledger(path: Path, run: Digest, states: dict[Digest, Digest] | None, said: list[str]) -> None:
    try:
        tip = read_ledger(path, run).tip
    except FileNotFoundError:
        return
    except DamagedFile as error:
        why = str(error)
    else:
        if states is None or tip in states:
            return
        why = "stands on a certificate that is not on disk"
    said.append(
        f"The ledger, with work that waited for a round, {why}. Set aside: {set_aside(path)}"
    )


def _stands(path: Path, said: list[str]) -> None:
    told: list[str] = []
    slots = SlotsFile(path, no_fault, told.append)
    if slots.unreadable or told:
        said.append(
            f"The stands {f'cannot be read ({slots.unreadable})' if slots.unreadable else 'are damaged'}. Set aside: {set_aside(path)}"
        )
