"""The port of the disk: what survives a restart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from protocol.digest import Buffer, Digest
from protocol.errors import UserError
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)

VIEW_RECORDS_KEPT = 16
"""The rounds whose views a node remembers.

After a restart, certificates may be ahead of the checkpoint by as many rounds.
"""

PROOFS_KEPT = 64
PROOFS_BYTES = 32 << 20
"""The most fraud proofs of one run that a disk keeps, and their bytes.

One proof holds a chunk of every contributor: 150 KB among eight members, 1.2 MB among 64. Where
there are more, the oldest go: keys are free, and a liar of long ago likely returns under a new key.
"""


class KeptState(Protocol):
    """The state of one kept checkpoint, open for reading.

    The state stays readable until it is closed, also when the disk removes the checkpoint.
    """

    async def read(self, offset: int, size: int) -> bytes | None:
        """Read `size` bytes (fewer at the end) of anchor then momentum, little-endian float32.

        Returns:
            None when the medium fails.
        """

    async def aclose(self) -> None: ...


class Disk(Protocol):
    """The records of a node that survive a restart.

    Every write is atomic: after a crash at any instant the disk holds the old or the new record,
    whole.

    Raises `DiskFull` when the medium refuses a write; the earlier record then remains. A damaged
    record that a node can do without reads as absent, and the disk reports it to its owner, once. A
    damaged record that a node needs (the certificates, every checkpoint) raises
    `UserError("DAMAGED")`: a node does not start over what it certified.
    """

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        """Save a checkpoint; durable on return.

        Checkpoints outside `superseded` stay: the disk removes nothing whose certificate it does
        not know.

        Args:
            superseded: the tips in the ancestry of this one; the disk keeps the last few of them.
        """

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        """Leave a branch on purpose: `load_checkpoint` no longer returns its checkpoints.

        A real disk sets the last few apart.
        """

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        """List (number, tip) of each checkpoint that `load_checkpoint` may return, oldest first.

        The list includes damaged checkpoints.
        """

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        """Load the newest whole checkpoint of this run.

        Returns:
            None where no checkpoint exists. A damaged one is skipped, unless there is no other.
        """

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        """Make the error for an unusable record of a run.

        The error names the place and a command that works.
        """

    async def save_ledger(self, record: LedgerRecord) -> None:
        """Save the run's only ledger; durable on return."""

    async def load_ledger(self, run: Digest) -> LedgerRecord | None: ...

    async def save_mark(self, run: Digest, mark: LedgerMark) -> None:
        """Replace the ledger's mark; durable on return.

        Every round calls this method: it must be quick.
        """

    async def load_mark(self, run: Digest) -> LedgerMark | None:
        """Load the ledger's mark.

        Returns:
            None where it is absent or damaged.
        """

    async def save_results(
        self, run: Digest, number: int, state: Digest, parts: Sequence[Buffer]
    ) -> None:
        """Save the bytes from which the state of certificate `number` follows; durable on return.

        Args:
            state: the digest of that state, which names the bytes.
            parts: the bytes, in order. They must not change until the method returns.
        """

    async def read_results(
        self, run: Digest, state: Digest, offset: int = 0, size: int | None = None
    ) -> bytes | None:
        """Read saved bytes from `offset` on, by default all of them; fewer at the end.

        Returns:
            None where they are absent or cannot be read. The caller checks what it reads.
        """

    async def drop_results(self, run: Digest, number: int) -> None:
        """Remove what was saved for certificates up to `number`."""

    @property
    def written_bytes(self) -> int:
        """The bytes that this disk wrote since it was opened."""

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        """Replace the view records, at most `VIEW_RECORDS_KEPT`; durable on return.

        Every round calls this method: it must be quick.
        """

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        """Load the view records in their order; none where they are absent or damaged."""

    async def save_held(self, run: Digest, held: Sequence[HeldCertificate]) -> None:
        """Replace the times since when this node has held certificates; durable on return.

        A disk has room for `HELD_KEPT` of them.
        """

    async def load_held(self, run: Digest) -> list[HeldCertificate]:
        """Load these times in their order; none where they are absent or damaged."""

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        """Append to the run's chain of certificates.

        A number that is not above the last one first removes the certificates from it on.
        """

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        """Read up to `limit` certificates in order, from number `first` on.

        An interrupted append reads as if it had not happened.
        """

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        """Save a fraud proof under its digest; durable on return. An existing proof stays.

        The disk keeps `PROOFS_KEPT` proofs of at most `PROOFS_BYTES` and removes the oldest.
        """

    async def proofs(self, run: Digest) -> list[Digest]:
        """List the kept proofs in the order in which they were saved."""

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        """Load exactly the bytes with that digest.

        Returns:
            None when they are absent or damaged; a damaged proof leaves the list of `proofs`.
        """

    async def open_state(self, tip: Digest) -> KeptState | None:
        """Open the state of a kept checkpoint; None when it is not kept."""


class DiskFull(Exception):
    """The disk refused a record.

    The message names the path, the bytes needed and the bytes free.
    """
