"""The medium of a disk in memory: what outlives the node, and how it fails."""

from __future__ import annotations

from protocol.digest import Digest
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)

# The size of the real disk's slot.
STANDS_BYTES = 4096


class PowerCut(Exception):
    """The power fails: everything stops, and what was not durable is lost."""


class MemoryMedium:
    """What survives a node. Give it to the `MemoryDisk` of each of the node's lives.

    `capacity_bytes` limits what is kept together with what is being written. `write_s` is how long
    a write takes in virtual time; a node that is cancelled in a write has not written.

    `cut_at` n makes the n-th step of writing from now (counted from 0) raise `PowerCut`. A write
    has three steps: the draft, putting it in place, and making that durable. A cut before the last
    step leaves the old or the new record, as `keeps_unsynced` says.
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
        # Of branches that the node left.
        self.left: dict[Digest, list[Checkpoint]] = {}
        self.ledgers: dict[Digest, LedgerRecord] = {}
        self.marks: dict[Digest, LedgerMark] = {}
        # By run and state: the number and the bytes.
        self.results: dict[Digest, dict[Digest, tuple[int, bytes]]] = {}
        self.view_records: dict[Digest, list[ViewRecord]] = {}
        self.held: dict[Digest, tuple[HeldCertificate, ...]] = {}
        self.chains: dict[Digest, list[tuple[int, bytes]]] = {}
        self.proofs: dict[Digest, list[bytes]] = {}

    def newest_ledger(self, run: Digest) -> tuple[Digest, int] | None:
        """The tip and the pending samples of the ledger, or of its mark where that is newer."""
        record, mark = self.ledgers.get(run), self.marks.get(run)
        if mark is not None and (record is None or mark.next_seq > record.next_seq):
            return mark.tip, mark.pending
        if record is None:
            return None
        return record.tip, record.weight + record.samples + record.later_samples

    def used_bytes(self) -> int:
        kept: int = sum(
            checkpoint_bytes(checkpoint)
            for checkpoints in (*self.checkpoints.values(), *self.left.values())
            for checkpoint in checkpoints
        )
        kept += sum(ledger_bytes(record) for record in self.ledgers.values())
        kept += STANDS_BYTES * (len(self.view_records) + len(self.marks) + len(self.held))
        kept += sum(len(body) for kept in self.results.values() for _, body in kept.values())
        kept += sum(len(proof) for proofs in self.proofs.values() for proof in proofs)
        return kept + sum(len(body) for chain in self.chains.values() for _, body in chain)

    def step(self) -> None:
        """Count one step of a write, which may be the one that is cut."""
        if self.cut_at is not None:
            self.cut_at -= 1
            if self.cut_at < 0:
                self.cut_at = None
                raise PowerCut


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    return sum(
        int(part.nbytes) for part in (checkpoint.anchor, checkpoint.momentum, checkpoint.inner)
    )


def ledger_bytes(record: LedgerRecord) -> int:
    vectors = int(record.residue.nbytes + record.displacement.nbytes + record.later.nbytes)
    return vectors + len(record.offered) + sum(len(sent.encoded) for sent in record.sent)
