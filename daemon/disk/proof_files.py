"""Stores a run's fraud proofs, one file each, named by their order of arrival and their digest.

    <order>-<digest>.proof      whole when its bytes have that digest
    <order>-<digest>.damaged    set aside for a person because its bytes have another digest

Both count towards the limits. The oldest files are removed first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from daemon.disk.atomic import FaultHook, remove_drafts, write_atomically
from protocol.digest import Digest, digest
from protocol.ports.disk import PROOFS_BYTES, PROOFS_KEPT

_NAME = re.compile(r"(\d{10})-([0-9a-f]{64})\.(proof|damaged)")


class ProofFiles:
    """The fraud proofs of one run. Blocking; one thread at a time may use it.

    `report` gets a sentence for each file that is set aside.
    """

    def __init__(self, directory: Path, fault: FaultHook, report: Callable[[str], None]) -> None:
        self._directory, self._fault, self._report = directory, fault, report

    def save(self, proof: bytes) -> int:
        """Write a proof, durable on return. Returns the bytes written.

        Raises `DiskFull`, and `ValueError` for a proof that is larger than the limit of all proofs.
        """
        if len(proof) > PROOFS_BYTES:
            raise ValueError(
                f"a proof of {len(proof)} bytes where {PROOFS_BYTES} are kept of all proofs"
            )
        name, entries = digest(proof), self._entries()
        if any(kept == name for _, kept, path in entries if path.suffix == ".proof"):
            return 0
        remove_drafts(self._directory)
        order = entries[-1][0] + 1 if entries else 1
        write_atomically(
            self._directory / f"{order:010d}-{name.hex()}.proof", [memoryview(proof)], self._fault
        )
        self._prune()
        return len(proof)

    def names(self) -> list[Digest]:
        return [name for _, name, path in self._entries() if path.suffix == ".proof"]

    def read(self, name: Digest) -> bytes | None:
        for _, kept, path in self._entries():
            if kept == name and path.suffix == ".proof":
                try:
                    if (
                        path.stat().st_size <= PROOFS_BYTES
                        and digest(proof := path.read_bytes()) == name
                    ):
                        return proof
                    self._set_aside(path, "does not match its digest any more")
                except FileNotFoundError:
                    # A newer proof has replaced it.
                    return None
                except OSError as error:
                    self._set_aside(path, f"cannot be read ({error.strerror})")
        return None

    def _set_aside(self, path: Path, why: str) -> None:
        aside = path.with_suffix(".damaged")
        try:
            path.rename(aside)
            done, where = "it was set aside", aside
        except OSError as error:
            # The next read finds the damage again.
            done, where = f"it cannot be set aside ({error.strerror})", path
        self._report(
            f"A fraud proof {why}; {done}. Until the fraud is proved again, this node works with"
            f" the peer that the proof convicts: {where}"
        )

    def _entries(self) -> list[tuple[int, Digest, Path]]:
        """Return the order, digest and path of each file, oldest first.

        Returns none while the folder cannot be read.
        """
        entries = []
        try:
            paths = list(self._directory.glob("*"))
        except OSError as error:
            self._report(
                f"The proofs cannot be listed now ({error.strerror}). It is tried again:"
                f" {self._directory}"
            )
            return []
        for path in paths:
            # A directory of that name is set aside too.
            if name := _NAME.fullmatch(path.name):
                entries.append((int(name[1]), bytes.fromhex(name[2]), path))
        return sorted(entries)

    def _prune(self) -> None:
        size = 0
        for kept, (_, _, path) in enumerate(reversed(self._entries()), start=1):
            # A file whose size is unknown counts the next time.
            with suppress(OSError):
                size += path.stat().st_size
            if kept > PROOFS_KEPT or size > PROOFS_BYTES:
                self._fault("remove")
                # The new proof is durable. The next one tries again.

                with suppress(OSError):
                    path.unlink(missing_ok=True)
