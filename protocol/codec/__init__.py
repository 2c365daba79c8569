"""Codecs: how a float32 vector travels.

Every decoder is exact numpy, the same values on every machine.

| name | bits an element | lossy part | result |
|---|---|---|---|
| float32 | 32 | none | itself |
| bfloat16, float16 | 16 | the low bits of the significand | itself |
| int8 | 8.06 | half a step of 1/127 of a block's peak | itself |
| int4 | 4.25 | half a step of 1/8 of a block's peak | itself |
| topk | 0.16 | all but 64 of 4096 elements | 256 of 4096, 0.51 bits |

A codec works chunk by chunk (`protocol.averaging.vector_layout.CHUNK_ELEMENTS`), so any run of chunks can be cut out
of an encoding, checked and decoded by itself. Lossy codecs are used with error feedback: what an
encoding lost stays in its owner's ledger (`protocol/contribution/ledger.py`).

All but topk are compiled where they can be (`compiled.py`); `implementation` says whether they are.
"""

from __future__ import annotations

from functools import cache

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec.base import Codec
from protocol.codec.blocks import Int4, Int8
from protocol.codec.compiled import CompiledCodec
from protocol.codec.floats import BFloat16, Float16, Float32
from protocol.codec.kernel import KernelLoops, KernelStatus, installed
from protocol.codec.topk import TopK
from protocol.errors import UserError

__all__ = ["CODECS", "REFERENCES", "Codec", "chunk_bytes", "codec_named", "implementation", "loops"]

_TOPK = TopK("topk", 64, result=TopK("topk_result", 16))

REFERENCES: dict[str, Codec] = {
    codec.name: codec for codec in (Float32(), BFloat16(), Float16(), Int8(), Int4(), _TOPK)
}
"""The codecs in numpy: what every other implementation is held against."""


@cache
def _kernel() -> KernelStatus:
    return installed([codec for codec in REFERENCES.values() if codec is not _TOPK])


CODECS: dict[str, Codec] = {
    name: codec if codec is _TOPK else CompiledCodec(codec, _kernel)
    for name, codec in REFERENCES.items()
}


def implementation() -> str:
    """`compiled`, or `numpy: ` and the reason why."""
    return _kernel().reason


def loops() -> KernelLoops | None:
    """The compiled loops, where they are used."""
    return _kernel().loops


def codec_named(name: str) -> Codec:
    """Raises `UserError("CODEC")` with the known names."""
    try:
        return CODECS[name]
    except KeyError:
        raise UserError(
            "CODEC",
            f"The run's codec {name!r} is not known to this version; known: {', '.join(CODECS)}.",
            exit_code=2,
        ) from None


def chunk_bytes(codec: Codec) -> int:
    """Bytes of one whole chunk: the leaf size of a contribution's digest."""
    return codec.size(CHUNK_ELEMENTS)
