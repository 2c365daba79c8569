"""Tests that free memory between used blocks returns to the kernel."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import trio

from daemon.system.allocator import PAUSE_S, trim_memory
from simulator.fakes.clock import run_virtual

# Smaller than the blocks for which malloc asks the kernel separately.
BLOCK_BYTES, BLOCKS, KEPT = 100_000, 1000, 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_trim_memory_returns_free_memory_between_used_blocks() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trim_memory)
            blocks = [bytearray(os.urandom(BLOCK_BYTES)) for _ in range(BLOCKS)]
            kept = blocks[::KEPT]
            del blocks
            held = resident_bytes()
            await trio.sleep(PAUSE_S + 1.0)
            assert held - resident_bytes() > BLOCK_BYTES * BLOCKS // 2
            assert len(kept) == BLOCKS // KEPT
            nursery.cancel_scope.cancel()

    run_virtual(main)
