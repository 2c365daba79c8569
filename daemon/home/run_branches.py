"""What a home knows of the branches of a run: tips, checkpoints, and the branch to follow.

<home>/runs/<run>/follow    the beginning of the hash of a certificate, which the owner of this
                            node follows whatever the rules say (`hypergpud run follow`)
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from daemon.chain.home_runs import run_folder
from daemon.disk.atomic import no_fault, write_atomically
from daemon.disk.chain_file import ChainFile
from daemon.disk.checkpoint_file import checkpoints_in, read_checkpoint
from daemon.disk.run_folder import ABANDONED, CERTIFICATES, CHECKPOINTS
from daemon.disk.tensors import DamagedFile
from daemon.swarm.chain_sync import unpack_record
from daemon.swarm.lineage import Lineage
from protocol.certificates.tip import Tip, decode_tip
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.run.manifest import SignedManifest

FOLLOW_FILE = "follow"
# The longest text in that file: a whole hash.
_MOST_BYTES = 64


class KeptTip(msgspec.Struct, frozen=True, kw_only=True):
    """A tip whose state this home has."""

    tip: Tip
    path: Path


def kept_tips(home: Path, signed: SignedManifest) -> list[KeptTip]:
    """Return the tips of the run's checkpoints, on every branch, by number. Changes nothing.

    A damaged checkpoint, and one that an earlier release wrote without its tip, is left out.
    """
    folder = run_folder(home, signed.run) / CHECKPOINTS
    found: list[KeptTip] = []
    for directory in (folder, folder / ABANDONED, *sorted((folder / ABANDONED).glob("*/"))):
        with suppress(OSError):
            for entry in checkpoints_in(directory):
                with suppress(DamagedFile, FileNotFoundError):
                    whole = read_checkpoint(entry.path, signed.run, entry.tip, entry.number)
                    tip = decode_tip(whole.stood)
                    if tip is not None and tip.hash == entry.tip:
                        found.append(KeptTip(tip=tip, path=entry.path))
    return sorted(found, key=lambda kept: (kept.tip.number, kept.tip.hash))


def newest_tip(home: Path, signed: SignedManifest) -> Tip | None:
    """Return the tip of the newest certificate on disk, else that of the newest checkpoint."""
    lineage = Lineage(signed.run, signed.open())
    kept = kept_tips(home, signed)
    chain = ChainFile(run_folder(home, signed.run) / CERTIFICATES, no_fault, lambda _: None)
    for _, body in chain.records():
        with suppress(PeerFault):
            for raw in unpack_record(body):
                lineage.add(raw, trusted=True)
    newest = kept[-1].tip if kept else None
    best = lineage.best if lineage.best.number else None
    if newest is None or (best is not None and best.number >= newest.number):
        return best
    return newest


def write_followed(home: Path, run: Digest, certificate: str) -> None:
    """Let the node of this home follow a certificate; "" lets the rules decide again.

    Args:
        home: the home.
        run: the run.
        certificate: the beginning of the hash, in hex.

    Raises:
        DiskFull: where the file cannot be written.
    """
    path = run_folder(home, run) / FOLLOW_FILE
    write_atomically(path, [memoryview(certificate.lower().encode())])


def read_followed(home: Path, run: Digest) -> str:
    """Return the beginning of the hash of the certificate to follow; "" for none."""
    try:
        with (run_folder(home, run) / FOLLOW_FILE).open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if all(letter in "0123456789abcdef" for letter in text) else ""
