"""The kernel id: what decides the last bits of a stage's results. Worker process only.

Two nodes with the same id compute the same bits from the same chunks. Nodes with different ids may
differ in the last bits, and mostly do.
"""

from __future__ import annotations

from pathlib import Path

import torch

from daemon.device.stages.cache import BLOCK_TOKENS
from protocol.digest import digest

# Raise this with every change of the arithmetic in this folder.
ARITHMETIC = 1
# The digits of the digest over the versions of the libraries.
_DIGITS = 8
_CPU_INFO = Path("/proc/cpuinfo")


def kernel_id(device: torch.device, threads: int) -> str:
    """Return the id of this process, in words: versions, processor, threads, arithmetic.

    The digest at the end covers torch's build, which names the versions of BLAS.
    """
    build = digest(torch.__config__.show().encode()).hex()[:_DIGITS]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        place = (
            f"{properties.name} cc{properties.major}.{properties.minor} cuda{torch.version.cuda}"
        )
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        place = f"{_processor()} {capability} threads{threads}"
    arithmetic = f"float32 arithmetic{ARITHMETIC} cache{BLOCK_TOKENS}"
    return f"torch{torch.__version__} {place} {arithmetic} {build}"


def _processor() -> str:
    """Return the processor's name: BLAS chooses its kernels by it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "cpu"
    named = next((line for line in lines if line.startswith("model name")), "cpu:cpu")
    return named.partition(":")[2].strip()
