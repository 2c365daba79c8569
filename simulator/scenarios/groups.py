"""Named stories of plans of several rows: what happens between rows, and what happens anywhere,
told once more where there are two.

On links of 20 ms, after a cut: what a row summed is under way for 20 ms, then the finished slices
for 20, then what is handed on to the rows for 20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.run.manifest import RoundRules
from simulator.faults import fault as f
from simulator.scenarios.liars import named_in_rows
from simulator.scenarios.story import Make, Story, Wanted

BETWEEN_ROWS: dict[str, float] = {
    "sum": 0.0,
    "sent": 0.005,
    "summed": 0.025,
    "finish": 0.03,
    "hand-on": 0.045,
    "handed-on": 0.055,
}
"""Seconds after the cut came to a slice's owner at which it dies: before what it summed of its row is under way, with it on its way, when
the others took it in, when slices are finished, when they came to it, when it has handed on most."""

MEMBERS = 9
ROW = 3
# So that everybody sums, finishes and hands on something.
PARAMETERS = 3 * MEMBERS * CHUNK_ELEMENTS


def _several_rows(
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
            max_group=ROW,
            parameters=PARAMETERS * n // MEMBERS,
            wanted=wanted,
        )

    return make


def _owner_lost(role: str, step: str, after_a_crash: Wanted, detected: Wanted) -> Make:
    # A leader that dies as its own slice spreads leaves some with all of it, who vote, and some
    # without, whom nobody can name a substitute: the voters wait for a majority to the end of their
    # view before all meet in a later one.
    wanted = detected if role == "leader" and step in ("hand-on", "handed-on") else after_a_crash
    when = f.FaultTrigger(enters="reduce", role=role, number=3, after_s=BETWEEN_ROWS[step])
    return _several_rows(
        f"rows-{role}-lost-{step}", lambda n: (f.Kill(node=f.WHOEVER, when=when),), wanted
    )


OWNERS_DIE: dict[str, float] = {"early": 0.0, "on-the-way": 0.06, "late": 0.2}
"""Seconds after the cut came to a slice's owner among 64 in four regions at which it dies: before what it summed of its row is under way, on its
way to far owners, when the finished shares are."""


def _four_regions(ending: str, schedule: tuple[f.AnyFault, ...], wanted: Wanted) -> Make:
    """Rows of sixteen at most, 64 nodes in four regions."""

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or 64
        return Story(
            name=f"rows-of-64{ending}",
            nodes=n,
            seed=seed,
            seconds=14.0 * wanted.rounds,
            schedule=schedule,
            max_group=n // 4,
            parameters=2 * n * CHUNK_ELEMENTS,
            round=RoundRules(seconds=6.0),
            link="regions",
            patience_s=60.0,
            wanted=wanted,
        )

    return make


def _owner_dies(after_s: float) -> tuple[f.AnyFault, ...]:
    return (
        f.Kill(
            node=f.WHOEVER,
            when=f.FaultTrigger(enters="reduce", role="member", number=1, after_s=after_s),
        ),
    )


def between_rows(after_a_crash: Wanted, detected: Wanted) -> dict[str, Make]:
    """Stories of three rows of three.

    `after_a_crash` is wanted after a single one, `detected` after several.
    """
    return {
        "rows-calm": _several_rows(
            "rows-calm", lambda n: (), Wanted(rounds=5, goodput_of_bound=1.0)
        ),
        **{
            f"rows-{role}-lost-{step}": _owner_lost(role, step, after_a_crash, detected)
            for role in ("member", "leader")
            for step in BETWEEN_ROWS
        },
        "rows-substitute-lost": _several_rows(
            "rows-substitute-lost",
            lambda n: tuple(
                f.Kill(
                    node=f.WHOEVER,
                    when=f.FaultTrigger(enters="reduce", role="member", number=3, after_s=after),
                )
                for after in (0.0, 0.03, 0.06)
            ),
            replace(detected, rounds=4),
        ),
        "rows-whole-row-lost": _several_rows(
            "rows-whole-row-lost",
            lambda n: (
                *(
                    f.Kill(
                        node=i,
                        when=f.FaultTrigger(enters="reduce", node=i, number=2, after_s=0.01),
                        back_s=6.0,
                    )
                    for i in range(ROW)
                ),
                *(
                    f.Kill(
                        node=i,
                        when=f.FaultTrigger(enters="scatter", node=i, number=4, after_s=0.01),
                    )
                    for i in range(ROW)
                ),
            ),
            replace(detected, rounds=4),
            seconds=45.0,
        ),
        "rows-relay-stopped": _several_rows(
            "rows-relay-stopped",
            lambda n: (
                f.Pause(
                    node=f.WHOEVER,
                    for_s=30.0,
                    when=f.FaultTrigger(enters="reduce", role="member", number=3, after_s=0.03),
                ),
            ),
            Wanted(rounds=4),
            seconds=60.0,
        ),
        "rows-of-64": _four_regions("", (), Wanted(rounds=1, goodput_of_bound=1.0)),
        **{
            f"rows-of-64-owner-dies-{when}": _four_regions(
                f"-owner-dies-{when}", _owner_dies(after_s), Wanted(rounds=2)
            )
            for when, after_s in OWNERS_DIE.items()
        },
    }


def _in_any_round(fault: f.AnyFault) -> f.AnyFault:
    """A fault at a leader's vote, at the first that there is."""
    when = fault.when
    return (
        fault
        if when is None or when.enters != "vote"
        else replace(fault, when=replace(when, number=None))
    )


def in_rows(named: Mapping[str, Make]) -> dict[str, Make]:
    """The same stories in two rows.

    What is wanted of a single row's speed is not: there is one way more.
    """

    def told(make: Make) -> Make:
        def again(nodes: int | None, seed: int) -> Story:
            story = make(nodes, seed)
            wanted = replace(named_in_rows(story.name, story.wanted), recovery_exchange_s=None)
            row = max(-(-story.nodes // 2), story.min_peers)
            # A leader may be the last to have all: then a certificate is there before its vote, in
            # that round.
            if story.name == "cascade":
                story = replace(
                    story, schedule=tuple(_in_any_round(fault) for fault in story.schedule)
                )
            return replace(story, name=f"rows-{story.name}", max_group=row, wanted=wanted)

        return again

    return {f"rows-{name}": told(make) for name, make in named.items()}
