"""A disk in memory.

The medium outlives the disk object as a disk outlives its process, and fails where it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np
import trio

from protocol.digest import Digest, digest
from protocol.errors import UserError
from protocol.ports.disk import PROOFS_BYTES, PROOFS_KEPT, DiskFull
from protocol.ports.disk_records import Checkpoint, LedgerRecord, ViewRecord

KEPT = 3  # as the real one does
STANDS_BYTES = 4096  # of the real one's slot


class PowerCut(Exception):
    """Everything stops here. What was not durable is gone."""


class MemoryMedium:
    """What survives. Give it to the `MemoryDisk` of each of a node's lives.

    `capacity_bytes` bounds what is kept together with what is being written; `write_s` is how long
    a write takes in virtual time (a node that is cancelled in it has not written); `cut_at` n makes
    the n-th step from now (from 0) of writing raise `PowerCut` instead of being done. A write has
    three: the draft, putting it in place, and making that durable. A cut before the last leaves the
    old or the new record, as `keeps_unsynced` says.
    """

    def __init__(
        self,
        *,
        capacity_bytes: float = float("inf"),
        write_s: float = 0.0,
        keeps_unsynced: bool = False,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.write_s = write_s
        self.keeps_unsynced = keeps_unsynced
        self.cut_at: int | None = None
        self.checkpoints: dict[Digest, list[Checkpoint]] = {}
        self.ledgers: dict[Digest, LedgerRecord] = {}
        self.view_records: dict[Digest, list[ViewRecord]] = {}
        self.chains: dict[Digest, list[tuple[int, bytes]]] = {}
        self.proofs: dict[Digest, list[bytes]] = {}

    def used_bytes(self) -> int:
        kept: int = sum(
            _size(checkpoint)
            for checkpoints in self.checkpoints.values()
            for checkpoint in checkpoints
        )
        kept += sum(_ledger_size(record) for record in self.ledgers.values())
        kept += STANDS_BYTES * len(self.view_records)
        kept += sum(len(proof) for proofs in self.proofs.values() for proof in proofs)
        return kept + sum(len(body) for chain in self.chains.values() for _, body in chain)

    def step(self) -> None:
        """One step of a write is about to be done."""
        if self.cut_at is not None:
            self.cut_at -= 1
            if self.cut_at < 0:
                self.cut_at = None
                raise PowerCut


def _size(checkpoint: Checkpoint) -> int:
    return sum(
        int(part.nbytes) for part in (checkpoint.anchor, checkpoint.momentum, checkpoint.inner)
    )


def _ledger_size(record: LedgerRecord) -> int:
    vectors = int(record.residue.nbytes + record.displacement.nbytes + record.later.nbytes)
    return vectors + len(record.offered) + sum(len(sent.encoded) for sent in record.sent)


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    return msgspec.structs.replace(
        checkpoint,
        anchor=checkpoint.anchor.copy(),
        momentum=checkpoint.momentum.copy(),
        inner=checkpoint.inner.copy(),
    )


def _copied_ledger(record: LedgerRecord) -> LedgerRecord:
    vectors = {
        "residue": record.residue,
        "displacement": record.displacement,
        "later": record.later,
    }
    return msgspec.structs.replace(
        record, **{name: vector.copy() for name, vector in vectors.items()}
    )


class MemoryDisk:
    """Satisfies `ports.Disk` over a medium. `damaged` is always empty: memory does not rot."""

    def __init__(self, medium: MemoryMedium, keep: int = KEPT) -> None:
        self.damaged: list[str] = []
        self._medium = medium
        self._keep = keep
        self._writing = trio.Lock()

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        new = _copied(checkpoint)

        def put() -> Callable[[], None]:
            old = self._medium.checkpoints.get(new.run, [])
            others = [kept for kept in old if (kept.number, kept.tip) != (new.number, new.tip)]
            passed = [kept for kept in others if kept.tip in superseded]
            gone = passed[: max(0, len(passed) - self._keep + 1)]
            stays = [kept for kept in others if all(kept is not one for one in gone)]
            self._medium.checkpoints[new.run] = sorted([*stays, new], key=lambda kept: kept.number)
            return lambda: self._medium.checkpoints.__setitem__(new.run, old)

        await self._write(f"checkpoint {new.number}", _size(new), put)

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        def put() -> Callable[[], None]:
            old = self._medium.checkpoints.get(run, [])
            self._medium.checkpoints[run] = [kept for kept in old if kept.tip not in tips]
            return lambda: self._medium.checkpoints.__setitem__(run, old)

        await self._write("a branch that was left", 0, put)

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        await trio.lowlevel.checkpoint()
        return [(kept.number, kept.tip) for kept in self._medium.checkpoints.get(run, [])]

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        return UserError("DAMAGED", what, why=why or "it is in memory")

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        await trio.lowlevel.checkpoint()
        kept = self._medium.checkpoints.get(run)
        return _copied(kept[-1]) if kept else None

    async def save_ledger(self, record: LedgerRecord) -> None:
        new = _copied_ledger(record)

        def put() -> Callable[[], None]:
            old = self._medium.ledgers.get(new.run)
            self._medium.ledgers[new.run] = new

            def take_back() -> None:
                if old is None:
                    del self._medium.ledgers[new.run]
                else:
                    self._medium.ledgers[new.run] = old

            return take_back

        await self._write("the ledger", _ledger_size(new), put)

    async def load_ledger(self, run: Digest) -> LedgerRecord | None:
        await trio.lowlevel.checkpoint()
        record = self._medium.ledgers.get(run)
        return _copied_ledger(record) if record else None

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        def put() -> Callable[[], None]:
            old = self._medium.view_records.get(run)
            self._medium.view_records[run] = list(records)

            def take_back() -> None:
                if old is None:
                    del self._medium.view_records[run]
                else:
                    self._medium.view_records[run] = old

            return take_back

        await self._write("where it stands", STANDS_BYTES, put)

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        await trio.lowlevel.checkpoint()
        return list(self._medium.view_records.get(run, ()))

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        def put() -> Callable[[], None]:
            old = self._medium.chains.get(run, [])
            self._medium.chains[run] = [
                *(entry for entry in old if entry[0] < number),
                (number, bytes(certificate)),
            ]
            return lambda: self._medium.chains.__setitem__(run, old)

        await self._write(f"certificate {number}", len(certificate), put)

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return [body for number, body in self._medium.chains.get(run, []) if number >= first][
            : max(0, limit)
        ]

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        if len(proof) > PROOFS_BYTES:
            raise ValueError(f"a proof of {len(proof)} bytes where {PROOFS_BYTES} are kept of all")
        if proof in self._medium.proofs.get(run, ()):
            return

        def put() -> Callable[[], None]:
            old = self._medium.proofs.get(run, [])
            new = [*old, bytes(proof)][-PROOFS_KEPT:]
            while sum(map(len, new)) > PROOFS_BYTES:
                new = new[1:]
            self._medium.proofs[run] = new
            return lambda: self._medium.proofs.__setitem__(run, old)

        await self._write("a proof", len(proof), put)

    async def proofs(self, run: Digest) -> list[Digest]:
        await trio.lowlevel.checkpoint()
        return [digest(proof) for proof in self._medium.proofs.get(run, ())]

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return next(
            (proof for proof in self._medium.proofs.get(run, ()) if digest(proof) == name), None
        )

    async def open_state(self, tip: Digest) -> OpenCheckpoint | None:
        await trio.lowlevel.checkpoint()
        for kept in self._medium.checkpoints.values():
            for checkpoint in kept:
                if checkpoint.tip == tip:
                    return OpenCheckpoint(checkpoint)
        return None

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        for kept in self._medium.checkpoints.values():
            for checkpoint in kept:
                if checkpoint.tip == tip:
                    return _slice(checkpoint, offset, offset + size)
        return None

    async def _write(self, what: str, size: int, put: Callable[[], Callable[[], None]]) -> None:
        """`put` puts the new record in place and returns how to take it back."""
        async with self._writing:
            free = (
                self._medium.capacity_bytes - self._medium.used_bytes()
                if self._medium.capacity_bytes != float("inf")
                else float("inf")
            )
            if size > free:
                raise DiskFull(
                    f"{what} needs {size:,} bytes, {max(0, int(free)):,} bytes are free in memory"
                )
            self._medium.step()
            if self._medium.write_s:
                await trio.sleep(self._medium.write_s)
            self._medium.step()
            take_back = put()
            try:
                self._medium.step()
            except PowerCut:
                if not self._medium.keeps_unsynced:
                    take_back()
                raise


class OpenCheckpoint:
    """Satisfies `ports.KeptState`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    async def read(self, offset: int, size: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        return _slice(self._checkpoint, offset, offset + size)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _slice(checkpoint: Checkpoint, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of anchor then momentum."""
    anchor, momentum = (
        np.ascontiguousarray(part).data.cast("B")
        for part in (checkpoint.anchor, checkpoint.momentum)
    )
    border = len(anchor)
    return bytes(anchor[start:stop]) + bytes(
        momentum[max(0, start - border) : max(0, stop - border)]
    )
