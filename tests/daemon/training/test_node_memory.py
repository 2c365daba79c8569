"""What the state of a node takes, in bytes a parameter. Prints its figures.

python -m pytest -s -m slow tests/daemon/training/test_node_memory.py

The limits are those of a whole node without its trainer and its network: the anchor and the next
one, the ledger, an offer, the results in memory, the memory that it shares with its worker, and the
full state on its way to the disk. `hypergpud bench training` prints what real nodes took.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from daemon.disk.file_disk import FileDisk
from daemon.services.training.native.engine_context import engine_context
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.lineage import Lineage
from protocol.averaging.encoded_mean import EncodedMean
from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from protocol.ports.offload import inline
from protocol.ports.trainer import ParameterSpec
from protocol.run.manifest import Manifest, Outer, seal
from tests.daemon.training.scripted_trainer import INFO, NODE

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.real]

PARAMETERS = 1 << 24
ROUNDS = 8


def memory_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def reset_peak() -> int:
    """Forget the peak, and return the present memory in KiB (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return memory_kib("VmRSS")


def ones(size: int) -> Vector:
    """As pages that the node shares with its worker."""
    return np.full(size, 1e-3, np.float32)


@pytest.mark.parametrize(
    ("codec", "outer", "limit"),
    [
        ("int4", Outer(learning_rate=1.0, momentum=0.0), 28),
        ("float32", Outer(learning_rate=0.7, momentum=0.9), 52),
    ],
)
async def test_the_state_of_a_node_holds_few_bytes_a_parameter(
    codec: str, outer: Outer, limit: int, tmp_path: Path
) -> None:
    manifest = Manifest(
        name="memory", task="t", rules=4, codec=codec, outer=outer, founders=(NODE.peer,)
    )
    manifest = replace(manifest, owner=NODE.peer)
    spec = ParameterSpec(name="w", shape=(PARAMETERS,), init="uniform", bound=0.1)
    signed = seal(manifest, NODE)
    before = reset_peak()
    store = StateStore(
        context=engine_context(signed, NODE),
        info=replace(INFO, parameters=PARAMETERS, specs=(spec,)),
        lineage=Lineage(signed.run, manifest),
        disk=FileDisk(tmp_path, inline),
        offload=inline,
        record=lambda event: None,
    )
    await store.resume()
    peaks = {"start": memory_kib("VmHWM")}

    async def present() -> Vector:
        # The worker writes it into shared memory, and the node copies it from there.
        return ones(2 * PARAMETERS)

    store.inner.source = present
    results = codec_named(codec).result
    for number in range(1, ROUNDS + 1):
        reset_peak()
        # The delta is in shared memory until the offer is durable.
        delta = ones(PARAMETERS)
        offer = await store.ledger_store.make_offer(delta, 8)
        del delta
        store.ledger.mark_sent()
        peaks["offer"] = memory_kib("VmHWM")
        reset_peak()
        name = number.to_bytes(32, "big")
        mean = EncodedMean(results, [(0, results.encode(store.ledger.displacement))])
        store.results.put(name, mean)
        await store.anchor.step(mean.decode, [], outer, inline)
        peaks["step"] = memory_kib("VmHWM")
        reset_peak()
        store.anchor.adopt(name)
        store.ledger.settle(offer.seq)
        # The new anchor goes to the worker through shared memory.
        shared = store.anchor.value.copy()
        del shared
        peaks["adoption"] = memory_kib("VmHWM")
    reset_peak()
    await store.write([], lambda: 1e9, full=True)
    peaks["full state"] = memory_kib("VmHWM")
    figures = {name: ((peak - before) << 10) / PARAMETERS for name, peak in peaks.items()}
    held = ((memory_kib("VmRSS") - before) << 10) / PARAMETERS
    words = ", ".join(f"{name} {figure:.1f}" for name, figure in figures.items())
    print(f"\n{codec}: bytes a parameter at most: {words}; between rounds {held:.1f}", flush=True)
    assert max(figures.values()) <= limit
