"""A disk that keeps nothing but certificates, so that a benchmark measures no medium."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import trio

from protocol.digest import Buffer, Digest
from protocol.errors import UserError
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)


class NullDisk:
    """A `Disk` that keeps the chain's records only: a round's cost without the medium."""

    def __init__(self) -> None:
        self._records: dict[int, bytes] = {}
        self.written_bytes = 0

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        await trio.lowlevel.checkpoint()

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        await trio.lowlevel.checkpoint()
        return []

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        return UserError("DAMAGED", what, why=why)

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        await trio.lowlevel.checkpoint()
        return None

    async def save_ledger(self, record: LedgerRecord) -> None:
        await trio.lowlevel.checkpoint()

    async def load_ledger(self, run: Digest) -> LedgerRecord | None:
        await trio.lowlevel.checkpoint()
        return None

    async def save_mark(self, run: Digest, mark: LedgerMark) -> None:
        await trio.lowlevel.checkpoint()

    async def load_mark(self, run: Digest) -> LedgerMark | None:
        await trio.lowlevel.checkpoint()
        return None

    async def save_held(self, run: Digest, held: Sequence[HeldCertificate]) -> None:
        await trio.lowlevel.checkpoint()

    async def load_held(self, run: Digest) -> list[HeldCertificate]:
        await trio.lowlevel.checkpoint()
        return []

    async def save_results(
        self, run: Digest, number: int, state: Digest, parts: Sequence[Buffer]
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def read_results(
        self, run: Digest, state: Digest, offset: int = 0, size: int | None = None
    ) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None

    async def drop_results(self, run: Digest, number: int) -> None:
        await trio.lowlevel.checkpoint()

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        await trio.lowlevel.checkpoint()

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        await trio.lowlevel.checkpoint()
        return []

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._records[number] = certificate

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        return [self._records[number] for number in sorted(self._records) if number >= first][
            :limit
        ]

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def proofs(self, run: Digest) -> list[Digest]:
        await trio.lowlevel.checkpoint()
        return []

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None

    async def open_state(self, tip: Digest) -> None:
        await trio.lowlevel.checkpoint()

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None
