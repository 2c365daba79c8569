"""Tests who writes the anchor's spare vectors: rounds, merges, and complete downloads."""

from __future__ import annotations

import numpy as np
import trio

from daemon.services.training.native.state.anchor import Anchor
from daemon.swarm.state_download import StateDownload
from protocol.averaging.outer_step import state_digest, state_leaves
from protocol.averaging.plan_sum import StepTerms
from protocol.averaging.vector_layout import Vector
from protocol.digest import merkle_root
from protocol.ports.offload import inline
from simulator.fakes.clock import run_virtual
from tests.protocol.rounds import MANIFEST, named

PARAMETERS = 70_000


def vector(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(PARAMETERS, dtype=np.float32)


def test_an_outer_step_during_a_download_changes_neither_state() -> None:
    async def story() -> None:
        anchor = Anchor(PARAMETERS, MANIFEST)
        value, momentum = vector(1), vector(2)
        leaves = state_leaves(value, momentum)
        download = StateDownload(named("tip"), merkle_root(leaves), PARAMETERS)
        own = (anchor.value, anchor.momentum, anchor.spare_value, anchor.spare_momentum)
        assert not any(
            np.shares_memory(theirs, ours)
            for theirs in (download.value, download.momentum)
            for ours in own
        )
        half = PARAMETERS // 2
        download.value[:half], download.momentum[:half] = value[:half], momentum[:half]
        # A view reaches its vote during the download.
        made = await anchor.step(
            lambda start, out: vector(3)[start : start + out.size],
            StepTerms(rounds=1.0, usual=None),
            MANIFEST.outer,
            inline,
        )
        stepped = made.digest
        download.value[half:], download.momentum[half:] = value[half:], momentum[half:]
        assert state_digest(anchor.spare_value, anchor.spare_momentum) == stepped
        assert state_digest(download.value, download.momentum) == merkle_root(leaves)
        # The certificate of the step arrives first. The node adopts the computed state, then the
        # downloaded one.
        anchor.adopt(named("computed"))
        assert state_digest(anchor.value, anchor.momentum) == stepped
        await anchor.receive(download.value, download.momentum, leaves)
        assert state_digest(anchor.value, anchor.momentum) == stepped, (
            "the anchor changes only with `adopt`"
        )
        anchor.adopt(named("downloaded"))
        assert state_digest(anchor.value, anchor.momentum) == merkle_root(leaves)
        assert (
            anchor.read(named("downloaded"), 0, 8 * PARAMETERS)
            == value.tobytes() + momentum.tobytes()
        )
        ends = anchor.read(named("downloaded"), 4 * PARAMETERS - 8, 16)
        assert ends == value[-2:].tobytes() + momentum[:2].tobytes()

    run_virtual(story)


def test_receive_waits_while_a_step_or_a_checkpoint_uses_the_spare_vectors() -> None:
    async def story() -> None:
        anchor = Anchor(PARAMETERS, MANIFEST)
        received = trio.Event()

        async def receive() -> None:
            await anchor.receive(vector(1), vector(2), state_leaves(vector(1), vector(2)))
            received.set()

        async with trio.open_nursery() as nursery:
            async with anchor.written:
                nursery.start_soon(receive)
                await trio.sleep(1.0)
                assert not received.is_set()
            await received.wait()

    run_virtual(story)
