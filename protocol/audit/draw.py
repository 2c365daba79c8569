"""Which contributions a voter audits, and which chunks of them.

Both follow from the voter's signature of the certificate's hash. No other node can predict them, so
a contributor cannot choose a round in which it is not audited.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from protocol.digest import Digest, digest
from protocol.identity import PeerId, Signer

_DOMAIN = b"hypergpu/work-audit/1\0"

EVERYONE_EVERY = 4
"""One of so many draws ignores who is a newcomer.

A crowd of newcomers would otherwise hide every member from audits.
"""

CHUNK_SHARE = 4
"""An auditor fetches one of so many chunks of a contribution.

The samples show less in a part of a contribution: of a small model, honest work scores 0.83 with an
eighth of the chunks (`hypergpud bench audits`), too near to the 0.75 that speak for a contributor.
"""

MIN_CHUNKS = 512
"""The least chunks that an auditor fetches, where the contribution has as many.

They are 8 MB in float32 and 1 MB in int4.
"""

CHUNKS_IN_ROW = 8
"""Chunks that are fetched together, so that one proof serves all of them."""


def audit_seed(signer: Signer, certificate: Digest) -> Digest:
    """Return the number that decides this voter's audit of one certificate."""
    return digest(signer.sign(_DOMAIN + certificate))


def draw_contributors(
    seed: Digest, contributors: Collection[PeerId], newcomers: Collection[PeerId]
) -> list[PeerId]:
    """Return the contributors in the order in which this voter audits them.

    Args:
        seed: from `audit_seed`.
        contributors: the peers whose work the certificate counts, without the voter.
        newcomers: those of them that this voter cannot judge yet. They come first in all but one of
            `EVERYONE_EVERY` draws.
    """
    newcomers_first = int.from_bytes(digest(seed, b"first")[:8], "big") % EVERYONE_EVERY > 0
    return sorted(
        contributors,
        key=lambda peer: (
            newcomers_first and peer not in newcomers,
            digest(seed, peer.encode()),
        ),
    )


def draw_chunks(seed: Digest, peer: PeerId, chunks: int) -> list[tuple[int, int]]:
    """Return the runs [first, stop) of chunks to fetch of a contribution of `chunks` chunks.

    The runs ascend and do not overlap.
    """
    wanted = max(-(-chunks // CHUNK_SHARE), min(chunks, MIN_CHUNKS))
    rows = -(-chunks // CHUNKS_IN_ROW)
    order = sorted(range(rows), key=lambda row: digest(seed, peer.encode(), row.to_bytes(8, "big")))
    return merge_runs(
        sorted(order[: -(-wanted // CHUNKS_IN_ROW)]), size=CHUNKS_IN_ROW, total=chunks
    )


def merge_runs(rows: Sequence[int], *, size: int, total: int) -> list[tuple[int, int]]:
    """Return the runs of chunks behind ascending `rows` of `size` chunks each, of `total`."""
    return [(row * size, min((row + 1) * size, total)) for row in rows]
