"""Commitments that bind a member to bytes before it sends them.

They are the Merkle root in an offer, and the root of a result that its reducer signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from protocol.digest import (
    Buffer,
    Digest,
    Levels,
    leaves_of,
    merkle_root,
    range_proof,
    root_from_range,
)


class Commitment(Protocol):
    """How an exchange proves and checks what travels.

    `first` and `total` count chunks, `chunk_bytes` is the size of one.
    """

    def proof(self, tree: Levels, first: int, stop: int) -> tuple[Digest, ...]:
        """The proof for chunks `[first, stop)` of a contribution with this tree."""

    def fits(
        self,
        data: Buffer,
        chunk_bytes: int,
        first: int,
        total: int,
        proof: Sequence[Digest],
        root: Digest,
    ) -> bool:
        """Whether `data` is the contribution with this root from chunk `first` on."""

    def root(self, data: Buffer, chunk_bytes: int) -> Digest:
        """The root of a slice's encoded mean, which its reducer signs."""

    def leaves(self, data: Buffer, chunk_bytes: int) -> list[Digest]:
        """The leaves of a run of whole chunks of an encoded mean."""

    def root_of(self, leaves: Sequence[Digest]) -> Digest:
        """What `root` returns for the encoded mean with these leaves."""


class Merkle:
    """The run's commitments: trees of BLAKE3 digests over chunks (`protocol/digest.py`)."""

    def proof(self, tree: Levels, first: int, stop: int) -> tuple[Digest, ...]:
        return tuple(range_proof(tree, first, stop))

    def fits(
        self,
        data: Buffer,
        chunk_bytes: int,
        first: int,
        total: int,
        proof: Sequence[Digest],
        root: Digest,
    ) -> bool:
        return root_from_range(leaves_of(data, chunk_bytes), first, total, proof) == root

    def root(self, data: Buffer, chunk_bytes: int) -> Digest:
        return merkle_root(leaves_of(data, chunk_bytes))

    def leaves(self, data: Buffer, chunk_bytes: int) -> list[Digest]:
        return leaves_of(data, chunk_bytes)

    def root_of(self, leaves: Sequence[Digest]) -> Digest:
        return merkle_root(leaves)
