"""Tests that `StateStore` never applies rules to what is certified already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from daemon.disk.checkpoint_file import read_checkpoint
from protocol.averaging import slice_sizes, vector_layout
from protocol.certificates import leader_order, tip
from protocol.planning import group_choice
from protocol.rules.registry import RULE_SETS
from tests.daemon.certified_home import (
    CertifiedHome,
    everything_in,
    vector,
)
from tests.daemon.training.resumed_node import (
    ROUNDS,
    resumed,
)


def _ties_to_the_last(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    return tuple(
        chunks - border
        for border in reversed(vector_layout.share_out(chunks, list(reversed(shares))))
    )


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the node must not compute certified results again")


RULE_CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "how slices are shared out": lambda patch: patch.setattr(
        vector_layout, "share_out", _ties_to_the_last
    ),
    "group choice": lambda patch: patch.setattr(group_choice, "NEARNESS", 0.5),
    "slices": lambda patch: patch.setattr(slice_sizes, "STEPS", 3),
    "lanes": lambda patch: patch.setattr(tip, "NEWCOMER_LANES", 5),
    "every function of the registry": lambda patch: [  # type: ignore[func-returns-value]
        patch.setitem(
            RULE_SETS,
            version,
            replace(
                rules,
                choose=_never,
                share_out=_ties_to_the_last,
                leader_order=lambda parent, candidates: tuple(sorted(candidates)),
                check_inclusion=_never,
                weighted_mean=_never,
                clipped_mean=_never,
                outer_step=_never,
                merge_vectors=_never,
            ),
        )
        for version, rules in RULE_SETS.items()
    ],
    "who leads": lambda patch: patch.setattr(
        leader_order, "leader_order", lambda parent, candidates: tuple(sorted(candidates))
    ),
}


@pytest.mark.parametrize("rule", RULE_CHANGES)
async def test_state_store_of_a_release_with_another_rule_resumes_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """A node must not apply its rules to certified rounds again.

    One changed character in a tie rule made nine certified rounds look forged. The node began at
    genesis and deleted its checkpoints.
    """
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    before = everything_in(home.folder)
    RULE_CHANGES[rule](monkeypatch)
    node = await resumed(home)
    assert node.state_store.tip.hash == home.tips[-1].hash
    assert node.warnings == []
    assert await node.state_store.write([], lambda: 0.0, full=True) == []
    after = everything_in(home.folder)
    assert after.keys() == before.keys()
    written = {name for name in before if after[name] != before[name]}
    # The position of the next round's data follows from the lanes. The checkpoint stores it.
    newest = {f"checkpoints/{home.checkpoints[-1].name}"} if rule == "lanes" else set()
    assert written == {"ledger.safetensors", *newest}
    assert np.array_equal(
        read_checkpoint(home.checkpoints[-1], home.run, node.state_store.tip.hash, ROUNDS).anchor,
        vector(ROUNDS, 0),
    )
