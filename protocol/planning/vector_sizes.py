"""How many bytes the run's vector takes on the wire."""

from __future__ import annotations

import msgspec


class VectorSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, or bits, of the whole vector as an offer, as partial sums, and as a result."""

    offer: int
    partial: int
    result: int
