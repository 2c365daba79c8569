"""Where the compiled loops are found, and when numpy does the work instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import implementation
from protocol.codec.base import Bytes8
from protocol.codec.blocks import Int8
from protocol.codec.compiled import CompiledCodec
from protocol.codec.kernel import REVISION, KernelStatus, load
from tests.protocol.codec.codecs import REFERENCES
from tests.protocol.codec.kernels import (
    LOOPED,
    NAMES,
    filled,
    kernel,
    made,
)

__all__ = ["kernel"]


def test_without_loops_numpy_does_the_work() -> None:
    assert load(None, LOOPED) == KernelStatus(
        None, "numpy: the compiled loops are missing; install again with a C compiler to have them"
    )
    values = made(CHUNK_ELEMENTS + 5, 1, "normal")
    for name in NAMES:
        codec = CompiledCodec(REFERENCES[name], lambda: load(None, LOOPED))
        data = codec.encode(values, 3)
        assert data == REFERENCES[name].encode(values, 3)
        codec.check(data, values.size)
        assert filled(lambda out, codec=codec, data=data: codec.mean([(1, data)], out), values.size)


class _OtherInt8(Int8):
    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        super()._encode(values, first, out)
        out[-1] ^= 1


def test_loops_that_would_make_other_bytes_are_not_used(
    tmp_path: Path, kernel: KernelStatus
) -> None:
    assert kernel.loops is not None
    library = Path(kernel.loops.path)
    assert (
        load(library, [_OtherInt8()]).reason
        == "numpy: the compiled int8 makes other bytes on this machine"
    )
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not an object")
    assert "cannot be loaded" in load(broken, LOOPED).reason
    stale = tmp_path / "stale.c"
    stale.write_text("int kernel_revision(void) { return 0; }")
    subprocess.run(
        [
            shutil.which("cc") or "gcc",
            "-shared",
            "-fPIC",
            "-o",
            str(tmp_path / "stale.so"),
            str(stale),
        ],
        check=True,
    )
    assert (
        f"revision 0, but this version needs {REVISION}"
        in load(tmp_path / "stale.so", LOOPED).reason
    )


def test_the_environment_switch_and_its_reason() -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from protocol.codec import implementation; print(implementation())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HYPERGPU_CODECS": "numpy"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == "numpy: chosen by HYPERGPU_CODECS"
    assert implementation().startswith(("compiled", "numpy: "))
