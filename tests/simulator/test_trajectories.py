"""A node keeps what it learned alone, through friends, restarts and the run's limit.

No sample is drawn twice.
"""

from __future__ import annotations

import pytest
import trio

from daemon.services.training.native.state.ledger_store import PASSED_BY
from protocol.journal import CheckpointWritten, RoundCertified, Trained, WorkDropped
from protocol.ports.trainer import Lane
from protocol.run.manifest import Group, Limits, Manifest, Outer, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.fakes.trainer import QuadraticTrainer
from simulator.world.world import World

# Rounds of training before a friend joins.
ALONE = 8
# The losses of two successive rounds differ by the samples' noise.
JUMP = 1.1
# The share of the progress made alone that may be lost when a friend without progress joins the
# mean at a tenth of the weight.
GIVEN_UP = 0.15
MANIFEST = Manifest(
    name="slow-learners",
    task="simulated",
    group=Group(min_peers=2, max_group=8),
    round=RoundRules(seconds=2.0, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
)
AFTER_FULL_STATE = "trained after the last full state on disk"
DIRECT = Outer(learning_rate=1.0, momentum=0.0)
DILOCO = Outer(learning_rate=0.7, momentum=0.9)


def world(
    nodes: int = 2, *, outer: Outer = DIRECT, codec: str = "float32", max_samples: int = 1 << 20
) -> World:
    """Nodes that make one or two steps a round: after eight rounds they are still learning."""
    manifest = Manifest(
        name=MANIFEST.name,
        task=MANIFEST.task,
        group=MANIFEST.group,
        round=MANIFEST.round,
        outer=outer,
        codec=codec,
        limits=Limits(max_samples=max_samples),
    )
    return World(
        seed=5,
        nodes=nodes,
        manifest=manifest,
        parameters=4096,
        samples_per_second=lambda index: 6.0 + index,
    )


def losses(played: World, node: int, after: float = 0.0) -> list[float]:
    """The loss of each stretch that was handed over."""
    events = played.events(Trained, node=node, after=after)
    return [event.loss for event in events if isinstance(event, Trained) and event.loss is not None]


def until_full_state(played: World) -> list[float]:
    """The losses of node 0 up to its last full state on disk."""
    own = [event for _, node, event in played.history if node == 0]
    last = max(at for at, event in enumerate(own) if isinstance(event, CheckpointWritten))
    return [
        event.loss for event in own[:last] if isinstance(event, Trained) and event.loss is not None
    ]


def certified(played: World, node: int) -> list[RoundCertified]:
    return [
        event
        for event in played.events(RoundCertified, node=node)
        if isinstance(event, RoundCertified)
    ]


def dropped(played: World) -> list[WorkDropped]:
    return [event for event in played.events(WorkDropped) if isinstance(event, WorkDropped)]


async def alone(played: World, rounds: int) -> None:
    """Let node 0 train alone."""
    played.start(0)
    await played.until(lambda: len(losses(played, 0)) >= rounds, 60, f"{rounds} rounds alone")


@pytest.mark.parametrize("outer", [DIRECT, DILOCO], ids=["direct", "diloco"])
@pytest.mark.parametrize("codec", ["float32", "int8", "int4"])
def test_friend_does_not_undo_what_a_node_learned_alone(codec: str, outer: Outer) -> None:
    """Averaged increments once raised the loss, as did momentum on a large displacement."""
    played = world(codec=codec, outer=outer)

    async def story() -> None:
        async with played.running():
            await alone(played, ALONE)
            played.start(1)
            await played.until(lambda: played.number(0) >= 4, 60, "four rounds together")

    run_virtual(story, seed=5)
    assert not played.invariants.broken, played.invariants.broken
    before = losses(played, 0)[ALONE - 1]
    first = certified(played, 0)[0]
    at = next(at for at, index, event in played.history if index == 0 and event is first)
    together = losses(played, 0, after=at)[:3]
    assert len(together) == 3
    allowed = before + GIVEN_UP * (losses(played, 0)[0] - before)
    assert max(together) <= allowed, f"{before:.4f} alone, then {together}"
    shares = {share.peer: share.samples for share in first.shares}
    trained = sum(
        event.samples
        for event in played.events(Trained, node=0)[:ALONE]
        if isinstance(event, Trained)
    )
    assert shares[played.nodes[0].peer] >= trained
    assert not dropped(played)


def test_first_anchor_is_the_weighted_mean_of_its_members() -> None:
    """Golden: the weights are the samples of whole trajectories.

    The outer step has rate 1 and no momentum.
    """
    played = world()
    stood: dict[int, tuple[float, float]] = {}

    async def story() -> None:
        async with played.running():
            await alone(played, ALONE)
            played.start(1)
            await played.until(lambda: bool(certified(played, 0)), 60, "the first certificate")
            engine = played.nodes[0].engine
            assert engine is not None
            assert engine.state_store is not None
            stood[1] = (float(engine.state_store.anchor.value[7]), 0.0)

    def watch(_at: float, node: object, event: object) -> None:
        """Record each member's value when it has handed over: the last one is its offer."""
        if isinstance(event, Trained) and not certified(played, 0):
            index = played.nodes.index(node)  # type: ignore[arg-type]
            trainer = played.nodes[index].trainer
            assert trainer is not None
            where[index] = (
                float(trainer.inner.point.now[7]),
                weights.get(index, 0) + event.samples,
            )
            weights[index] = where[index][1]

    where: dict[int, tuple[float, int]] = {}
    weights: dict[int, int] = {}
    played.watchers.append(watch)
    run_virtual(story, seed=5)
    total = sum(weight for _, weight in where.values())
    mean = sum(value * weight for value, weight in where.values()) / total
    assert stood[1][0] == pytest.approx(mean, rel=1e-4)


def test_node_alone_continues_after_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone node is killed twice in mid-round and asked to leave once; then a friend joins.

    A kill costs what the node trained since its last full state, an orderly end nothing. No sample
    is drawn twice.
    """
    played = world()
    drawn: dict[str, list[int]] = {}
    draw = QuadraticTrainer._draw

    def noted(trainer: QuadraticTrainer) -> tuple[Lane, int]:
        lane, first = draw(trainer)
        positions = [lane.position(first + k) for k in range(trainer._batch_size)]
        drawn.setdefault(trainer._peer, []).extend(positions)
        return lane, first

    monkeypatch.setattr(QuadraticTrainer, "_draw", noted)
    ends: list[tuple[int, float]] = []

    async def story() -> None:
        async with played.running():
            await alone(played, ALONE)
            for orderly in (False, False, True):
                await trio.sleep(0.7)
                if orderly:
                    played.finish(0)
                else:
                    played.kill(0)
                await played.until(lambda: not played.nodes[0].alive, 10, "its end")
                known = losses(played, 0)
                kept = known if orderly else until_full_state(played)
                ends.append((len(known), kept[-1]))
                await alone(played, len(known) + 3)
            played.start(1)
            await played.until(lambda: played.number(0) >= 4, 60, "four rounds together")

    run_virtual(story, seed=5)
    assert not played.invariants.broken, played.invariants.broken
    known = losses(played, 0)
    for count, before in ends:
        assert known[count] <= JUMP * before, f"{before:.4f} before, {known[count]:.4f} after"
    assert known[-1] < 0.5 * known[0]
    for peer, positions in drawn.items():
        assert len(set(positions)) == len(positions), (
            f"{peer} drew {len(positions) - len(set(positions))} positions twice"
        )
    # Each kill drops what it costs, and says so.
    assert all(AFTER_FULL_STATE in event.reason for event in dropped(played)), dropped(played)
    assert len(dropped(played)) <= 2, "an orderly end drops nothing"


def test_sample_limit_costs_weight_and_no_progress() -> None:
    """A node that was alone for long has more samples than one offer may have.

    It offers its whole displacement once.
    """
    played = world(max_samples=30)

    async def story() -> None:
        async with played.running():
            await alone(played, ALONE)
            played.start(1)
            await played.until(lambda: played.number(0) >= 4, 60, "four rounds together")

    run_virtual(story, seed=5)
    assert not played.invariants.broken, played.invariants.broken
    first = certified(played, 0)[0]
    assert max(share.samples for share in first.shares) == 30
    assert [event.reason for event in dropped(played)] == [
        "certificate 1 counts at most 30 samples of a member"
    ]
    at = next(at for at, index, event in played.history if index == 0 and event is first)
    # The first stretch that is handed over after the certificate has steps from before it, too.
    together = losses(played, 0, after=at)[1:]
    assert together == sorted(together, reverse=True), (
        "a second offer of the same displacement would overshoot"
    )
    assert together[0] < 0.5 * losses(played, 0)[0], (
        "the friend has the same weight and no progress"
    )


def test_newcomer_offers_nothing_from_the_initial_parameters() -> None:
    """A newcomer trains from the initial parameters until it has an anchor of the run.

    Once a later certificate counted that work, which threw the run back.
    """
    played = world(3)

    async def story() -> None:
        async with played.running():
            played.start(0, 1)
            await played.until(lambda: played.number(0) >= 5, 60, "five rounds")
            played.start(2)
            await played.until(
                lambda: len(played.events(Trained, node=2)) >= 4, 60, "the newcomer's rounds"
            )

    run_virtual(story, seed=5)
    assert not played.invariants.broken, played.invariants.broken
    me = played.nodes[2].peer
    counted = [
        share.samples
        for event in certified(played, 0)
        for share in event.shares
        if share.peer == me
    ]
    from_anchor = [
        event.samples
        for event in played.events(Trained, node=2)
        if isinstance(event, Trained) and event.number > 1
    ]
    assert counted
    assert sum(counted) <= sum(from_anchor), "no sample of the work at genesis"
    assert all(
        PASSED_BY in event.reason or "initial parameters" in event.reason
        for event in dropped(played)
    )
