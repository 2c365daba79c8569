"""Random stories from a seed: every kind of fault, at random.

A story that fails is shrunk to the faults that it needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from protocol.rules.versions import CURRENT_RULES, RULES_2, RULES_4
from protocol.run.manifest_parts import MIN_SECONDS
from simulator.faults import fault as f
from simulator.faults.lies import LIES
from simulator.scenarios.story import QUICK, Story

MOST_NODES = 8
LEAST_NODES = 3
MOST_FAULTS = 6
# Local training and exchange together, for the length of a story.
ROUND_S = 6.0
LEAST_ROUNDS = 4
MOST_ROUNDS = 9
# Faults at steps come in these rounds. A story goes on until everybody has moved on after them.
FAULTED_ROUNDS = 6
# "near" appears twice: half of what goes wrong needs no bad link.
LINKS = ("near", "near", "perfect", "good", "average", "poor", "far", "world")
FUZZED_LIES = tuple(
    name
    for name, lie in LIES.items()
    if lie.least_rules < RULES_4
    and (not lie.unnoticed or name in ("false_hold_report", "false_height"))
)
SLEEPER = "sleeper"
# Attackers of runs of rules 4: strangers that certify, leaders that censor, words, work and
# silence. Two voters that certify alone need an accomplice, and keys of before a day.
ATTACKS = (
    "strangers_certify",
    "flood_certificates",
    "censor_voters",
    "different_copies",
    "silent_after_offer",
    "slander",
    "overclaim",
    SLEEPER,
)
FAULTED_STEPS = ("ready", "scatter", "reduce", "vote", "adopt", "offer", "fetch", "merge")
# The most runs that shrinking may use.
SHRINKS = 40


def random_story(seed: int, nodes: int | None = None) -> Story:
    """The story of a seed, with `nodes` nodes where that is given."""
    rng = random.Random(f"story {seed}")
    count = nodes or rng.randint(LEAST_NODES, MOST_NODES)
    seconds = ROUND_S * rng.randint(LEAST_ROUNDS, MOST_ROUNDS)
    schedule = tuple(_fault(rng, count, seconds) for _ in range(rng.randint(1, MOST_FAULTS)))
    late = [i for i in range(2, count) if rng.random() < 0.15]
    joins = tuple(f.Start(node=i, at_s=_time(rng, seconds)) for i in late)
    min_peers = 2 if rng.random() < 0.8 else 3
    story = Story(
        name="fuzz",
        nodes=count,
        seed=seed,
        seconds=seconds,
        schedule=(*schedule, *joins, *_lie(rng, count, seconds)),
        min_peers=min_peers,
        max_group=max(min_peers, _group_size(rng.random())),
        codec="float32" if rng.random() < 0.7 else "bfloat16",
        link=rng.choice(LINKS),
        marked=rng.random() < 0.9,
        starts=tuple(i for i in range(count) if i not in late),
        rules=_rules(rng.random()),
        round=replace(
            QUICK,
            overlap=rng.random() < 0.7,
            min_seconds=rng.choice((MIN_SECONDS, MIN_SECONDS, QUICK.seconds)),
        ),
    )
    story = replace(story, schedule=(*story.schedule, *_poison(seed, story)))
    return _attacked(seed, story)


def _poison(seed: int, story: Story) -> tuple[f.AnyFault, ...]:
    """A poisoner in half of the stories that can have one.

    Votes bound what it does, and a mark that is multiplied is no mark. Its own generator leaves the
    rest of each story as it was before there were poisoners.
    """
    rng = random.Random(f"poison {seed}")
    if story.rules < RULES_4 or story.marked or rng.random() > 0.5:
        return ()
    factor = rng.choice((-1.0, 0.0, 100.0))
    node = rng.randrange(story.nodes)
    return (f.Poison(node=node, factor=factor, at_s=_time(rng, story.seconds)),)


def _attacked(seed: int, story: Story) -> Story:
    """An attacker of rules 4 in half of the stories of those rules that have no other liar.

    Its own generator leaves the rest of each story as it was before there were such attackers.
    """
    rng = random.Random(f"attack {seed}")
    liars = any(isinstance(fault, f.ByzantineBehavior) for fault in story.schedule)
    if story.rules < RULES_4 or story.nodes < 4 or liars or rng.random() > 0.5:
        return story
    kind = rng.choice(ATTACKS)
    node, at_s = rng.randrange(story.nodes), _time(rng, story.seconds)
    if kind != SLEEPER:
        attack = f.ByzantineBehavior(
            node=node, kind=kind, at_s=at_s, for_s=round(rng.uniform(5, 30), 3)
        )
        return replace(story, schedule=(*story.schedule, attack))
    # A sleeper works four times as fast as the others, before it hands over something else.
    paces = tuple(4.0 if i == node else 1.0 for i in range(story.nodes))
    poison = f.Poison(node=node, factor=-1.0, at_s=round(0.6 * story.seconds, 3))
    return replace(story, marked=False, paces=paces, schedule=(*story.schedule, poison))


def _rules(drawn: float) -> int:
    """The rules of a story: most are of the two newest versions."""
    return RULES_2 if drawn < 0.25 else CURRENT_RULES if drawn < 0.6 else RULES_4


def _group_size(drawn: float) -> int:
    """The size of groups: a quarter of the stories may have several groups.

    One in seven mostly has, because of its many nodes.
    """
    return 32 if drawn < 0.75 else 4 if drawn < 0.85 else 3 if drawn < 0.95 else 2


def _time(rng: random.Random, seconds: float) -> float:
    return round(rng.uniform(0.0, seconds), 3)


def _lie(rng: random.Random, nodes: int, seconds: float) -> tuple[f.AnyFault, ...]:
    """At most one liar: two liars of three nodes are a majority, and nothing is promised then."""
    if nodes < 4 or rng.random() > 0.25:
        return ()
    return (
        f.ByzantineBehavior(
            node=rng.randrange(nodes),
            kind=rng.choice(FUZZED_LIES),
            at_s=_time(rng, seconds),
            for_s=round(rng.uniform(5, 30), 3),
        ),
    )


def _fault(rng: random.Random, nodes: int, seconds: float) -> f.AnyFault:
    node = rng.randrange(nodes)
    for_s = round(rng.uniform(1.0, 40.0), 3)
    place: dict[str, Any] = {"at_s": _time(rng, seconds)}
    if rng.random() < 0.45:
        place = {
            "when": f.FaultTrigger(
                enters=rng.choice(FAULTED_STEPS[:5] if rng.random() < 0.8 else FAULTED_STEPS),
                node=None,
                role=rng.choice(f.ROLES),
                number=rng.randint(1, FAULTED_ROUNDS) if rng.random() < 0.7 else None,
                after_s=rng.choice((0.0, 0.001, 0.02, 0.05, 0.1, round(rng.random(), 3))),
            )
        }
        node = f.NODE_AT_STEP if rng.random() < 0.8 else node
    kinds: tuple[Callable[[], f.AnyFault], ...] = (
        lambda: f.Kill(
            node=node,
            back_s=round(rng.uniform(0.0, 40.0), 3) if rng.random() < 0.7 else None,
            **place,
        ),
        lambda: f.Kill(node=node, back_s=round(rng.uniform(0.0, 5.0), 3), **place),
        lambda: f.PowerCut(
            back_s=round(rng.uniform(0.0, 10.0), 3),
            spread_s=rng.choice((0.0, 1.0, 10.0)),
            **place,
        ),
        lambda: f.Partition(groups=_groups(rng, nodes), for_s=for_s, **place),
        lambda: f.Sever(node=node, other=rng.randrange(nodes), for_s=for_s, **place),
        lambda: f.Pause(node=node, for_s=for_s, **place),
        lambda: f.Straggle(
            node=node,
            # A stopped trainer, and steps 2 to 50 times as long.
            speed=rng.choice((0.0, 0.02, 0.1, 0.5)),
            rate_bps=rng.choice((None, 1e5, 1e6)),
            for_s=for_s,
            **place,
        ),
        lambda: f.SlowDownlink(
            node=node, rate_bps=rng.choice((5e4, 3e5, 1e6)), for_s=for_s, **place
        ),
        lambda: f.Lose(node=node, share=rng.choice((0.1, 0.5, 1.0)), for_s=for_s, **place),
        lambda: f.Duplicate(node=node, share=rng.choice((0.2, 1.0)), for_s=for_s, **place),
        lambda: f.Reorder(
            node=node,
            share=rng.choice((0.0, 0.3, 0.8)),
            late_s=rng.choice((0.0, 0.2, 2.0)),
            for_s=for_s,
            **place,
        ),
        lambda: f.Corrupt(node=node, share=rng.choice((0.02, 0.3)), for_s=for_s, **place),
        lambda: f.SkewClock(node=node, by_s=rng.choice((-3600.0, 3600.0, -5.0)), **place),
        lambda: f.Shift(node=node, by_s=rng.choice((-4.0, -3.0, -1.0, 1.0, 3.0, 8.0)), **place),
        lambda: f.CrashTrainer(node=node, **place),
        lambda: f.Diverge(node=node, **place),
        lambda: f.FillDisk(node=node, for_s=for_s, **place),
        lambda: f.LeaveFault(node=node, **place),
    )
    return rng.choice(kinds)()


def _groups(rng: random.Random, nodes: int) -> tuple[tuple[int, ...], ...]:
    sides: tuple[list[int], ...] = ([], [], [])
    for i in range(nodes):
        sides[rng.choice((0, 0, 0, 1, 1, 2) if rng.random() < 0.3 else (0, 1))].append(i)
    return tuple(tuple(side) for side in sides if side)


def shrink(story: Story, fails: Callable[[Story], bool]) -> Story:
    """The same story with fewer faults that still fails.

    Each fault is left out in turn as long as the story still fails, halves first.
    """
    runs = 0
    size = max(1, len(story.schedule) // 2)
    while size:
        start = 0
        while start < len(story.schedule) and runs < SHRINKS:
            rest = (*story.schedule[:start], *story.schedule[start + size :])
            runs += 1
            if fails(replace(story, schedule=rest)):
                story = replace(story, schedule=rest)
            else:
                start += size
        size //= 2
    return story
