"""Codecs: how a float32 vector travels.

Every decoder is exact numpy and gives the same values on every machine. A codec works chunk by
chunk (`protocol.averaging.vector_layout.CHUNK_ELEMENTS`). So any run of whole chunks of an encoding
can be checked and decoded by itself. Lossy codecs are used with error feedback: what an encoding
lost stays in its owner's ledger (`protocol/contribution/ledger.py`).

To add a codec:

1. Write a subclass of `NumpyCodec` (`numpy_codec.py`): a name, `size`, `_encode` and `_decode` for
   one piece. `floats.py` has the shortest.
2. Add a `CodecEntry` to `BUILT_IN` in `registry.py`: the codec, one line of description, its error
   bound.
3. Add the codec's digest to `GOLDEN` in `tests/protocol/codec/test_golden.py`, in the order of
   `BUILT_IN`, so that its bytes never change. The failing test prints the digest.
4. Run `pytest tests/protocol/codec`. The property suite, error feedback, the manifest and
   `hypergpud bench codecs` iterate over the registry.
5. To speed it up, write its loops in `kernel.c` under the codec's name, raise `REVISION` in
   `kernel.py`, and set `has_loops=True`. numpy stays the definition: loops that make other bytes
   are not used.

Which codec a run uses is in its manifest (`codec = "int8"`).
"""

from __future__ import annotations

from protocol.codec.base import Codec
from protocol.codec.registry import (
    CodecEntry,
    chunk_bytes,
    codec_named,
    entries,
    entry_named,
    implementation,
    loops,
)

__all__ = [
    "Codec",
    "CodecEntry",
    "chunk_bytes",
    "codec_named",
    "entries",
    "entry_named",
    "implementation",
    "loops",
]
