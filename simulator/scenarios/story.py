"""A story: everything that decides what a world does, as one record.

The same story gives the same history, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from protocol.errors import UserError
from protocol.rules.versions import CURRENT_RULES, RULES_4
from protocol.run.manifest import Group, Limits, Manifest, RoundRules
from protocol.run.manifest_parts import Trust
from simulator.fakes.link_profiles import LINKS
from simulator.faults.fault import AnyFault, Schedule
from simulator.faults.fault_text import describe

# The longest story that --fuzz ever shrank has some hundred kilobytes.
MAX_STORY_BYTES = 16 << 20
QUICK = RoundRules(
    seconds=5.0, min_seconds=5.0, ready_s=1.0, scatter_s=4.0, gather_s=4.0, vote_s=2.0
)
"""Rounds short enough to play many; the deadlines are ordered as the defaults are.

All have one length, so that a fault at a given second meets the same phase as before.
"""

# The default deadlines apply.
SLOW_ROUNDS = RoundRules(seconds=20.0)
# A crash is noticed within this time.
DETECTION_S = 5.0
# Three chunks. With more members than that, some reduce nothing, which is a case of its own.
PARAMETERS = 3 * 4096


class VotesWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a story of rules 4 must reach by its votes. None means that it does not matter."""

    # The voters in the end.
    voters: int | None = None
    # Nodes that vote in the end, and nodes that do not.
    keep: tuple[int, ...] = ()
    lose: tuple[int, ...] = ()
    # The least and the most certificates without a quorum in the longest ancestry.
    degraded: tuple[int, int] = (0, 0)
    merges: int | None = None
    # The different tips at which the living nodes are in the end.
    tips: int | None = 1
    # The most certificates of one number that honest nodes ever adopted: one for each branch.
    branches: int | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a story must reach besides the invariants. None means that it does not matter."""

    # Certificates in the longest ancestry.
    rounds: int = 1
    goodput_of_bound: float | None = None
    detection_s: float | None = None
    # From the last fault to the next certificate, without training.
    recovery_exchange_s: float | None = None
    # The same, as detection and so many exchanges of this world before its first fault.
    recovery_exchanges: float | None = None
    # The longest time between two successive certificates of the longest ancestry.
    longest_round_s: float | None = None
    # (node, reason): an honest node must have refused this node for that reason.
    refused: tuple[tuple[int, str], ...] = ()
    # The loss must fall.
    learns: bool = False
    # An honest node must have warned that these nodes may have summed wrongly.
    suspected: tuple[int, ...] = ()
    # Nobody may drop other work than what certificates passed by, which is halved until it is gone.
    drops_only_passed: bool = False
    # From then on no honest leader plans with a liar, and every honest node has reported the proof
    # in its last life.
    liars_out_from_s: float | None = None
    votes: VotesWanted | None = None


class Story(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides what a world does.

    `starts` are the nodes that start at second 0; None means all. The others wait for a `Start`.
    """

    name: str
    nodes: int
    seed: int
    seconds: float
    schedule: Schedule = ()
    # The version of the rules by which the members plan and average.
    rules: int = CURRENT_RULES
    round: RoundRules = QUICK
    min_peers: int = 2
    max_group: int = 32
    max_samples: int = 1_000_000
    codec: str = "float32"
    link: str = "near"
    parameters: int = PARAMETERS
    samples_per_second: float = 20.0
    # Contributions are constants that name their peer and stretch, not gradients of the quadratic.
    marked: bool = True
    starts: tuple[int, ...] | None = None
    wanted: Wanted = Wanted()
    # After the last fault, until every live node must have moved on. With None, `ProgressCheck`
    # computes it from the deadlines.
    settle_timeout_s: float | None = None
    # By what the pace of each node is multiplied; nodes beyond the end have the usual pace.
    paces: tuple[float, ...] = ()
    # By how much trainers score faster than they train; None for the trainer's default.
    evaluation_speed: float | None = None
    # The nodes that found a run of rules 4; None means all.
    founders: int | None = None
    # Whether the run admits only its nodes, so that each of them is trusted.
    allowlist: bool = False
    # The grace of a run of rules 4; None means the default.
    grace_s: float | None = None

    def __post_init__(self) -> None:
        if self.link not in LINKS:
            raise ValueError(f"unknown links {self.link!r}; known: {', '.join(LINKS)}")

    def manifest(self) -> Manifest:
        """The run that the nodes of this story take part in."""
        return Manifest(
            name="simulated",
            task="quadratic",
            rules=self.rules,
            seed=self.seed,
            codec=self.codec,
            round=self.round,
            group=Group(min_peers=self.min_peers, max_group=self.max_group),
            limits=Limits(max_samples=self.max_samples),
            # A mark is no work: an audit would speak against everybody.
            trust=Trust(
                quorum_grace_s=self.grace_s,
                audit="none" if self.marked and self.rules >= RULES_4 else "loss",
            ),
        )

    def pace_of(self, node: int) -> float:
        """The samples that a node trains in a second."""
        factor = self.paces[node] if node < len(self.paces) else 1.0
        return self.samples_per_second * factor * (1.0 + 0.1 * (node % 5))

    def text(self) -> str:
        """Lines for a person."""
        lines = [
            f"{self.name}, seed {self.seed}: {self.nodes} nodes for {self.seconds:g} s, "
            f"links {self.link}"
        ]
        return "\n".join([*lines, *(f"  {describe(fault)}" for fault in self.schedule)])


Make = Callable[[int | None, int], Story]
"""Makes a named story from a number of nodes (None for the usual one) and a seed."""


def plain(
    name: str,
    seconds: float,
    count: int,
    schedule: Callable[[int], tuple[AnyFault, ...]],
    **more: object,
) -> Make:
    """A story of `count` nodes, unless the caller asks for another number.

    The schedule may depend on the number of nodes.
    """

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        return Story(
            name=name,
            nodes=n,
            seed=seed,
            seconds=seconds,
            schedule=schedule(n),
            **more,  # type: ignore[arg-type]
        )

    return make


def write_story(story: Story, path: Path) -> None:
    """Write a story as JSON that `read_story` reads."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(story)) + b"\n")


def read_story(path: Path) -> Story:
    """Read a story.

    Raises:
        UserError: With code STORY, when the file does not hold a story.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_STORY_BYTES + 1)
        if len(raw) > MAX_STORY_BYTES:
            raise ValueError(f"it has more than {MAX_STORY_BYTES} bytes")
        return msgspec.json.decode(raw, type=Story)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise UserError(
            "STORY",
            f"{path} is not a story.",
            why=error.strerror if isinstance(error, OSError) and error.strerror else str(error),
            fix="write a story with `hypergpud simulate NAME --save FILE`",
            exit_code=2,
        ) from None
