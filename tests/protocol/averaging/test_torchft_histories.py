"""The outer step makes the parameter histories that torchft publishes for DiLoCo.

Source: pytorch/torchft, `test_fixtures/torchft.diloco_regression_test.DiLoCoMockedUpdateTest.
test_diloco_mocked_updates_0.json` (no delay, no mixing): two replicas, a gradient of 2, an inner
rate of 1, an outer rate of 2 without momentum, a step of 6 between two averages. Its two fragments
are averaged in turn; each is a model of its own here. The numbers are the fixture's.
"""

from __future__ import annotations

import numpy as np
import pytest

from protocol.averaging.outer_step import outer_step
from protocol.averaging.reduction import weighted_mean
from protocol.codec import codec_named
from protocol.run.manifest import Outer

OUTER = Outer(learning_rate=2.0, momentum=0.0)
REPLICAS, GRADIENT, SYNC_EVERY = 2, 2.0, 6
# Before each inner step, and after the average where there was one.
FIRST = (1, -1, -3, -11, -13, -15, -17, -19, -21, -35, -37, -39, -41, -43, -45, -59)
SECOND = (1, -1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47, -49, -51, -53)
# The anchor of each fragment after the steps at which torchft records it.
FIRST_ANCHORS = {0: 1, 3: -11, 6: -11, 9: -35, 12: -35}
SECOND_ANCHORS = {0: 1, 3: 1, 6: -23, 9: -23, 12: -47}


@pytest.mark.parametrize(
    ("first_sync", "history", "anchors"),
    [(3, FIRST, FIRST_ANCHORS), (6, SECOND, SECOND_ANCHORS)],
    ids=["fragment 0", "fragment 1"],
)
def test_the_outer_step_makes_torchfts_histories(
    first_sync: int, history: tuple[int, ...], anchors: dict[int, int]
) -> None:
    codec = codec_named("float32")
    anchor, momentum = np.ones(1, np.float32), np.zeros(1, np.float32)
    replicas = [anchor.copy() for _ in range(REPLICAS)]
    found, kept = [1.0], {0: 1.0}
    for step in range(1, len(history)):
        replicas = [replica - np.float32(GRADIENT) for replica in replicas]
        if step % SYNC_EVERY == first_sync % SYNC_EVERY:
            mean, after = np.empty(1, np.float32), (np.empty(1, np.float32), momentum.copy())
            offers = [(8, codec.encode(anchor - replica)) for replica in replicas]
            weighted_mean(offers, codec, mean)
            outer_step(anchor, momentum, mean, OUTER, *after)
            anchor, momentum = after
            replicas = [anchor.copy() for _ in range(REPLICAS)]
        found.append(float(replicas[0][0]))
        kept[step] = float(anchor[0])
    assert found == list(history)
    assert {step: kept[step] for step in anchors} == anchors
