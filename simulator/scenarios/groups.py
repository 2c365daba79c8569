"""Named stories of several groups: what happens between groups, and every other story again.

On links of 20 ms, after the inclusion: a group's sums are under way for 20 ms, then the finished
slices for 20 ms, then the slices that are handed on within the groups for 20 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.run.manifest import RoundRules
from simulator.faults import fault as f
from simulator.scenarios.liars import named_in_groups
from simulator.scenarios.story import Make, Story, Wanted

# In this story the first round without the leader has other partners. Streams to them take some
# round trips to open, once for the parts and once for the results.
NEW_PARTNERS = "crash-leader-vote-after"
OPEN_STREAMS = 1.5

BETWEEN_GROUPS: dict[str, float] = {
    "sum": 0.0,
    "sent": 0.005,
    "summed": 0.025,
    "finish": 0.03,
    "hand-on": 0.045,
    "handed-on": 0.055,
}
"""When a slice's owner dies, in seconds after the inclusion reached it.

In order: before its group's sum is under way, with the sum under way, when the others have received
it, when slices are finished, when they reached it, and when it has handed on most of them.
"""

MEMBERS = 9
GROUP_SIZE = 3
# With this size everybody sums, finishes and hands on something.
PARAMETERS = 3 * MEMBERS * CHUNK_ELEMENTS


def _several_groups(
    name: str,
    schedule: Callable[[int], tuple[f.AnyFault, ...]],
    wanted: Wanted,
    *,
    seconds: float = 30.0,
    count: int = MEMBERS,
) -> Make:
    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        return Story(
            name=name,
            nodes=n,
            seed=seed,
            seconds=seconds,
            schedule=schedule(n),
            max_group=GROUP_SIZE,
            parameters=PARAMETERS * n // MEMBERS,
            wanted=wanted,
        )

    return make


def _owner_lost(role: str, step: str, after_a_crash: Wanted, detected: Wanted) -> Make:
    # When the leader dies while its own slice spreads, some members have all of it and vote. The
    # others lack it and nobody can name a substitute for them. The voters wait for a majority to
    # the end of their view before all meet in a later one.
    wanted = detected if role == "leader" and step in ("hand-on", "handed-on") else after_a_crash
    when = f.FaultTrigger(enters="reduce", role=role, number=3, after_s=BETWEEN_GROUPS[step])
    return _several_groups(
        f"groups-{role}-lost-{step}", lambda n: (f.Kill(node=f.NODE_AT_STEP, when=when),), wanted
    )


OWNERS_DIE: dict[str, float] = {"early": 0.0, "on-the-way": 0.06, "late": 0.2}
"""When an owner among 64 nodes in four regions dies, in seconds after the inclusion reached it.

In order: before its group's sum is under way, with the sum under way to far owners, and with the
finished shares under way.
"""


def _four_regions(ending: str, schedule: tuple[f.AnyFault, ...], wanted: Wanted) -> Make:
    """64 nodes in four regions, in groups of at most sixteen."""

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or 64
        return Story(
            name=f"groups-of-64{ending}",
            nodes=n,
            seed=seed,
            seconds=14.0 * wanted.rounds,
            schedule=schedule,
            max_group=n // 4,
            parameters=2 * n * CHUNK_ELEMENTS,
            round=RoundRules(seconds=6.0),
            link="regions",
            settle_timeout_s=60.0,
            wanted=wanted,
        )

    return make


def _owner_dies(after_s: float) -> tuple[f.AnyFault, ...]:
    return (
        f.Kill(
            node=f.NODE_AT_STEP,
            when=f.FaultTrigger(enters="reduce", role="member", number=1, after_s=after_s),
        ),
    )


def between_groups(after_a_crash: Wanted, detected: Wanted) -> dict[str, Make]:
    """Stories of three groups of three.

    `after_a_crash` is wanted after a single crash, `detected` after several.
    """
    return {
        "groups-calm": _several_groups(
            "groups-calm", lambda n: (), Wanted(rounds=5, goodput_of_bound=1.0)
        ),
        **{
            f"groups-{role}-lost-{step}": _owner_lost(role, step, after_a_crash, detected)
            for role in ("member", "leader")
            for step in BETWEEN_GROUPS
        },
        "groups-substitute-lost": _several_groups(
            "groups-substitute-lost",
            lambda n: tuple(
                f.Kill(
                    node=f.NODE_AT_STEP,
                    when=f.FaultTrigger(enters="reduce", role="member", number=3, after_s=after),
                )
                for after in (0.0, 0.03, 0.06)
            ),
            replace(detected, rounds=4),
        ),
        "groups-whole-group-lost": _several_groups(
            "groups-whole-group-lost",
            lambda n: (
                *(
                    f.Kill(
                        node=i,
                        when=f.FaultTrigger(enters="reduce", node=i, number=2, after_s=0.01),
                        back_s=6.0,
                    )
                    for i in range(GROUP_SIZE)
                ),
                *(
                    f.Kill(
                        node=i,
                        when=f.FaultTrigger(enters="scatter", node=i, number=4, after_s=0.01),
                    )
                    for i in range(GROUP_SIZE)
                ),
            ),
            replace(detected, rounds=4),
            seconds=45.0,
        ),
        "groups-relay-stopped": _several_groups(
            "groups-relay-stopped",
            lambda n: (
                f.Pause(
                    node=f.NODE_AT_STEP,
                    for_s=30.0,
                    when=f.FaultTrigger(enters="reduce", role="member", number=3, after_s=0.03),
                ),
            ),
            Wanted(rounds=4),
            seconds=60.0,
        ),
        "groups-of-64": _four_regions("", (), Wanted(rounds=1, goodput_of_bound=1.0)),
        **{
            f"groups-of-64-owner-dies-{when}": _four_regions(
                f"-owner-dies-{when}", _owner_dies(after_s), Wanted(rounds=2)
            )
            for when, after_s in OWNERS_DIE.items()
        },
    }


def _in_any_round(fault: f.AnyFault) -> f.AnyFault:
    """The fault at the leader's first vote, where it was placed at a leader's vote in one round."""
    when = fault.when
    return (
        fault
        if when is None or when.enters != "vote"
        else replace(fault, when=replace(when, number=None))
    )


def in_groups(named: Mapping[str, Make]) -> dict[str, Make]:
    """The same stories in two groups.

    The exchange may take longer than in one group: there is one more trip.
    """

    def regrouped(make: Make) -> Make:
        def again(nodes: int | None, seed: int) -> Story:
            story = make(nodes, seed)
            wanted = replace(named_in_groups(story.name, story.wanted), recovery_exchange_s=None)
            if story.name == NEW_PARTNERS and wanted.recovery_exchanges is not None:
                wanted = replace(
                    wanted, recovery_exchanges=OPEN_STREAMS * wanted.recovery_exchanges
                )
            size = max(-(-story.nodes // 2), story.min_peers)
            # A leader may be the last to have all slices. Then a certificate exists before its vote
            # in that round.
            if story.name == "cascade":
                story = replace(
                    story, schedule=tuple(_in_any_round(fault) for fault in story.schedule)
                )
            return replace(story, name=f"groups-{story.name}", max_group=size, wanted=wanted)

        return again

    return {f"groups-{name}": regrouped(make) for name, make in named.items()}
