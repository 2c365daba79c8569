"""A disk in memory: its medium outlives it, as a real disk outlives its process, and can fail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import trio

from protocol.digest import Buffer, Digest, digest
from protocol.errors import UserError
from protocol.ports.disk import PROOFS_BYTES, PROOFS_KEPT, DiskFull
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)
from simulator.fakes.medium import (
    STANDS_BYTES,
    MemoryMedium,
    PowerCut,
    checkpoint_bytes,
    ledger_bytes,
)

Kept = TypeVar("Kept")
# As many as the real disk keeps.
KEPT = 3
# Of all left branches together. The real disk keeps by age and size.
LEFT_KEPT = 8


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
    """A `ports.Disk` over a medium. `damaged` is always empty: memory does not rot."""

    def __init__(self, medium: MemoryMedium, keep: int = KEPT) -> None:
        self.damaged: list[str] = []
        self._medium = medium
        self._keep = keep
        self._written_bytes = 0
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

        await self._write(f"checkpoint {new.number}", checkpoint_bytes(new), put)

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        def put() -> Callable[[], None]:
            old, before = self._medium.checkpoints.get(run, []), self._medium.left.get(run, [])
            left = [kept for kept in old if kept.tip in tips]
            self._medium.checkpoints[run] = [kept for kept in old if kept.tip not in tips]
            self._medium.left[run] = [*before, *left][-LEFT_KEPT:]

            def take_back() -> None:
                self._medium.checkpoints[run], self._medium.left[run] = old, before

            return take_back

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
        await self._replace("the ledger", self._medium.ledgers, new.run, new, ledger_bytes(new))

    async def load_ledger(self, run: Digest) -> LedgerRecord | None:
        await trio.lowlevel.checkpoint()
        record = self._medium.ledgers.get(run)
        return _copied_ledger(record) if record else None

    async def save_mark(self, run: Digest, mark: LedgerMark) -> None:
        await self._replace("the ledger's mark", self._medium.marks, run, mark, STANDS_BYTES)

    async def load_mark(self, run: Digest) -> LedgerMark | None:
        await trio.lowlevel.checkpoint()
        return self._medium.marks.get(run)

    async def save_results(
        self, run: Digest, number: int, state: Digest, parts: Sequence[Buffer]
    ) -> None:
        body = b"".join(parts)

        def put() -> Callable[[], None]:
            old = self._medium.results.get(run, {})
            self._medium.results[run] = {**old, state: (number, body)}
            return lambda: self._medium.results.__setitem__(run, old)

        await self._write(f"the results of certificate {number}", len(body), put)

    async def read_results(
        self, run: Digest, state: Digest, offset: int = 0, size: int | None = None
    ) -> bytes | None:
        await trio.lowlevel.checkpoint()
        kept = self._medium.results.get(run, {}).get(state)
        stop = None if size is None else offset + size
        return kept[1][offset:stop] if kept is not None else None

    async def drop_results(self, run: Digest, number: int) -> None:
        await trio.lowlevel.checkpoint()
        kept = self._medium.results.get(run, {})
        self._medium.results[run] = {
            state: entry for state, entry in kept.items() if entry[0] > number
        }

    @property
    def written_bytes(self) -> int:
        return self._written_bytes

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        kept = self._medium.view_records
        await self._replace("the view records", kept, run, list(records), STANDS_BYTES)

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        await trio.lowlevel.checkpoint()
        return list(self._medium.view_records.get(run, ()))

    async def save_held(self, run: Digest, held: Sequence[HeldCertificate]) -> None:
        kept = self._medium.held
        await self._replace("the times of adoption", kept, run, tuple(held), STANDS_BYTES)

    async def load_held(self, run: Digest) -> list[HeldCertificate]:
        await trio.lowlevel.checkpoint()
        return list(self._medium.held.get(run, ()))

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
        found = self._kept(tip)
        return OpenCheckpoint(found) if found is not None else None

    def _kept(self, tip: Digest) -> Checkpoint | None:
        medium = self._medium
        for kept in (*medium.checkpoints.values(), *medium.left.values()):
            for checkpoint in kept:
                if checkpoint.tip == tip:
                    return checkpoint
        return None

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        found = self._kept(tip)
        return _slice(found, offset, offset + size) if found is not None else None

    async def _replace(
        self, what: str, kept: dict[Digest, Kept], run: Digest, new: Kept, size: int
    ) -> None:
        """Replace the only record of a kind that a run has."""

        def put() -> Callable[[], None]:
            old = kept.get(run)
            kept[run] = new

            def take_back() -> None:
                if old is None:
                    del kept[run]
                else:
                    kept[run] = old

            return take_back

        await self._write(what, size, put)

    async def _write(self, what: str, size: int, put: Callable[[], Callable[[], None]]) -> None:
        """Write a record: `put` puts it in place and returns a function that takes it back."""
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
            self._written_bytes += size


class OpenCheckpoint:
    """A checkpoint in memory, as `ports.KeptState` promises it."""

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
    """Bytes [start, stop) of the anchor followed by the momentum."""
    anchor, momentum = (
        np.ascontiguousarray(part).data.cast("B")
        for part in (checkpoint.anchor, checkpoint.momentum)
    )
    border = len(anchor)
    return bytes(anchor[start:stop]) + bytes(
        momentum[max(0, start - border) : max(0, stop - border)]
    )
