"""A story: everything that decides what a world will do, as one record.

The same story gives the same history, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from protocol.errors import UserError
from protocol.run.manifest import Group, Limits, Manifest, RoundRules
from simulator.fakes.link_profiles import LINKS
from simulator.faults.fault import AnyFault, Schedule, describe

# The longest story that --fuzz ever shrank has some hundred kilobytes.
MAX_STORY_BYTES = 16 << 20
QUICK = RoundRules(seconds=5.0, ready_s=1.0, scatter_s=4.0, gather_s=4.0, vote_s=2.0)
"""Rounds short enough for many of them; the deadlines in the same order as the defaults."""

SLOW_ROUNDS = RoundRules(seconds=20.0)  # with the default deadlines
DETECTION_S = 5.0  # a crash is noticed within
# Three chunks: with more members than that some reduce nothing, which is a case of its own.
PARAMETERS = 3 * 4096


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a story must reach besides the invariants. None: does not matter."""

    rounds: int = 1  # certificates in the longest ancestry
    goodput_of_bound: float | None = None
    detection_s: float | None = None
    # From the last fault to the next certificate, training not counted.
    recovery_exchange_s: float | None = None
    # The same, as detection and so many exchanges of the same world before its first fault.
    recovery_exchanges: float | None = None
    # Between two certificates in a row of the longest ancestry.
    longest_round_s: float | None = None
    # (node, reason): somebody honest must have refused this node for it.
    refused: tuple[tuple[int, str], ...] = ()
    learns: bool = False  # the loss must fall
    # Somebody honest must have said that this node may have summed wrongly.
    suspected: tuple[int, ...] = ()
    # Nobody may drop work but what certificates passed by: that halves, and goes.
    drops_only_passed: bool = False
    liars_out_from_s: float | None = (
        # From then on no honest leader plans with a liar, and all the honest have said why in their
        # last life.
        None
    )


class Story(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`starts` are the nodes filled at second 0 (all of them when None); the others wait for a
    `Start`.
    """

    name: str
    nodes: int
    seed: int
    seconds: float
    schedule: Schedule = ()
    round: RoundRules = QUICK
    min_peers: int = 2
    max_group: int = 32
    max_samples: int = 1_000_000
    codec: str = "float32"
    link: str = "near"
    parameters: int = PARAMETERS
    samples_per_second: float = 20.0
    # Contributions are constants that name their peer and stretch, instead of real gradients of the
    # quadratic.
    marked: bool = True
    starts: tuple[int, ...] | None = None
    wanted: Wanted = Wanted()
    patience_s: float | None = (
        # After the last fault, until everybody must have moved on; None: `World` computes it from
        # the deadlines.
        None
    )

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise ValueError(f"no links are called {self.link!r}; known: {', '.join(LINKS)}")

    def manifest(self) -> Manifest:
        """The run that the nodes of this story are in."""
        return Manifest(
            name="simulated",
            task="quadratic",
            seed=self.seed,
            codec=self.codec,
            round=self.round,
            group=Group(min_peers=self.min_peers, max_group=self.max_group),
            limits=Limits(max_samples=self.max_samples),
        )

    def text(self) -> str:
        """Lines for a person."""
        lines = [
            f"{self.name}, seed {self.seed}: {self.nodes} nodes for {self.seconds:g} s, links {self.link}"
        ]
        return "\n".join([*lines, *(f"  {describe(fault)}" for fault in self.schedule)])


Make = Callable[[int | None, int], Story]
"""A named story, of as many nodes as it likes best or of so many, from a seed."""


def plain(
    name: str,
    seconds: float,
    count: int,
    schedule: Callable[[int], tuple[AnyFault, ...]],
    **more: object,
) -> Make:
    """A story of `count` nodes (where nothing else is asked for) whose schedule may depend on how
    many they are.
    """

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        return Story(name=name, nodes=n, seed=seed, seconds=seconds, schedule=schedule(n), **more)  # type: ignore[arg-type]

    return make


def write_story(story: Story, path: Path) -> None:
    """As JSON that `read_story` takes."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(story)) + b"\n")


def read_story(path: Path) -> Story:
    """Raises `UserError("STORY")`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_STORY_BYTES + 1)
        if len(raw) > MAX_STORY_BYTES:
            raise ValueError(f"it has more than {MAX_STORY_BYTES} bytes")
        return msgspec.json.decode(raw, type=Story)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise UserError(
            "STORY",
            f"{path} holds no story.",
            why=error.strerror if isinstance(error, OSError) and error.strerror else str(error),
            fix="write one with --save, or see simulator/scenarios/story.py",
            exit_code=2,
        ) from None
