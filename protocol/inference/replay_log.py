"""What a client keeps of a generation, so that any stage of it can be replaced.

The client is the hub: the input of every stage passes through it. It keeps each stage's inputs, in
the chunks in which they were computed, and the digest of each result. A new stage that gets the
same chunks computes the same bits, if its kernel is the same; the digests show whether it did.

All data are bytes as they travelled: token ids at boundary 0, hidden states behind it. Boundary
`layers` has digests alone, of logits.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from protocol.digest import Digest
from protocol.inference.activations import chunk_digest
from protocol.inference.messages import MAX_STEP_TOKENS


class LoggedChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk as it passed a boundary. `data` is empty where only the digest is kept."""

    tokens: int
    digest: Digest
    data: bytes = b""


class ReplayStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a replay: chunks in order, and the digests that their results had before."""

    position: int
    shapes: tuple[int, ...]
    data: bytes
    # Empty where the results are not known.
    expected: tuple[Digest, ...]


class ReplayLog:
    """The chunks of one generation at each boundary of its chain."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._chunks: dict[int, list[LoggedChunk]] = {0: []}

    def tokens_at(self, boundary: int) -> int:
        """Count the tokens that passed a boundary."""
        return sum(chunk.tokens for chunk in self._chunks.get(boundary, ()))

    def data(self, boundary: int, tokens: int) -> bytes:
        """Return the first `tokens` tokens that passed a boundary."""
        parts: list[bytes] = []
        for chunk in self._chunks.get(boundary, ()):
            if tokens <= 0:
                break
            parts.append(chunk.data)
            tokens -= chunk.tokens
        return b"".join(parts)

    def last_digest(self) -> Digest:
        """Return the digest of the last logits. The log has at least one."""
        return self._chunks[self._layers][-1].digest

    def add(self, boundary: int, tokens: int, data: bytes) -> None:
        """Note the next chunk at a boundary."""
        self.add_digest(boundary, tokens, chunk_digest(data), data)

    def add_digest(self, boundary: int, tokens: int, digest: Digest, data: bytes = b"") -> None:
        """Note the next chunk, whose digest is known."""
        kept = b"" if boundary == self._layers else data
        self._chunks.setdefault(boundary, []).append(
            LoggedChunk(tokens=tokens, digest=digest, data=kept)
        )

    def replace(self, boundary: int, chunks: list[LoggedChunk]) -> None:
        """Put what passed a boundary in place of what passed there before."""
        self._chunks[boundary] = chunks

    def keep_boundaries(self, boundaries: set[int]) -> None:
        """Forget the inputs of stages that are in the chain no more."""
        for boundary in [one for one in self._chunks if one not in boundaries | {self._layers}]:
            del self._chunks[boundary]

    def steps(
        self, first: int, stop: int, tokens: int, *, merged: bool = False
    ) -> Iterator[ReplayStep]:
        """Yield the steps that bring a new stage of layers `first` to `stop` to `tokens` tokens.

        Args:
            tokens: where the replay ends; a chunk that is not answered yet comes after it.
            merged: send as few, large chunks as possible: faster, with other last bits.
        """
        position, results = 0, iter(self._chunks.get(stop, ()))
        batch: list[LoggedChunk] = []
        expected: list[Digest] = []
        for chunk in self._chunks[first]:
            if position + sum(one.tokens for one in batch) >= tokens:
                break
            full = sum(one.tokens for one in batch) + chunk.tokens > MAX_STEP_TOKENS
            if batch and full:
                yield _step(position, batch, expected, merged)
                position += sum(one.tokens for one in batch)
                batch, expected = [], []
            batch.append(chunk)
            result = next(results, None)
            if result is not None:
                expected.append(result.digest)
        if batch:
            yield _step(position, batch, expected, merged)


def _step(
    position: int, batch: list[LoggedChunk], expected: list[Digest], merged: bool
) -> ReplayStep:
    shapes = tuple(chunk.tokens for chunk in batch)
    known = len(expected) == len(batch) and not (merged and len(batch) > 1)
    return ReplayStep(
        position=position,
        shapes=(sum(shapes),) if merged else shapes,
        data=b"".join(chunk.data for chunk in batch),
        expected=tuple(expected) if known else (),
    )
