"""Codecs: how a float32 vector travels. Every decoder is exact numpy, the same values on every machine.

| name | bits an element | lossy part | result |
|---|---|---|---|
| float32 | 32 | none | itself |
| bfloat16, float16 | 16 | the low bits of the significand | itself |
| int8 | 8.06 | half a step of 1/127 of a block's peak | itself |
| int4 | 4.25 | half a step of 1/8 of a block's peak | itself |
| topk | 0.16 | all but 64 of 4096 elements | 256 of 4096, 0.51 bits |

A codec works chunk by chunk (`protocol.layout.CHUNK_ELEMENTS`), so any run of chunks can be cut out of an encoding, checked and decoded
by itself. Lossy codecs are used with error feedback: what an encoding lost stays in its owner's ledger (`protocol/ledger.py`).
"""

from __future__ import annotations

from protocol.codec.base import Codec, check_encoding
from protocol.codec.blocks import Int4, Int8
from protocol.codec.floats import BFloat16, Float16, Float32
from protocol.codec.topk import TopK
from protocol.errors import UserError
from protocol.layout import CHUNK_ELEMENTS

__all__ = ["CODECS", "BFloat16", "Codec", "Float16", "Float32", "Int4", "Int8", "TopK", "check_encoding", "chunk_bytes", "codec_named"]

CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Float32(), BFloat16(), Float16(), Int8(), Int4(), TopK("topk", 64, result=TopK("topk_result", 16)))
}


def codec_named(name: str) -> Codec:
    """Raises `UserError("CODEC")` with the known names."""
    try:
        return CODECS[name]
    except KeyError:
        raise UserError(
            "CODEC", f"The run's codec {name!r} is not known to this version; known: {', '.join(CODECS)}.", exit_code=2
        ) from None


def chunk_bytes(codec: Codec) -> int:
    """Bytes of one whole chunk: the leaf size of a contribution's digest."""
    return codec.size(CHUNK_ELEMENTS)
