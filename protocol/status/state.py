"""What the fold keeps between events. Everything in it is bounded, whatever the events say.

The parts are the frozen records of the status themselves, replaced when they change, so that
`record` copies references and no more. Sentences are kept in two lists: what strangers can cause
(connections, refusals) never pushes out what this node did.
"""

from __future__ import annotations

from collections import deque

from protocol.chain.reputation import Reputations
from protocol.identity import PeerId
from protocol.journal import REFUSALS, Planned
from protocol.status.figures import clean, tail
from protocol.status.records import (
    KEPT_EVENTS,
    KEPT_POINTS,
    KEPT_ROUNDS,
    EventLine,
    LossPoint,
    NetworkFigures,
    NodeSummary,
    PeerSummary,
    RoundSummary,
    RunSummary,
)

# Of the KEPT_EVENTS sentences, how many may be about peers coming, going and being refused.
KEPT_FROM_OTHERS = 15
MAX_NAME_CHARS = 64  # as in a beacon
MAX_TEXT_CHARS = 256

_NOBODY = NodeSummary(
    peer="",
    name="",
    role="node",
    version="",
    addresses=(),
    phase="starting",
    phase_reason="",
    device="",
    samples_total=0,
    samples_per_second=0.0,
    samples_pending=0,
    loss=None,
    rounds_counted=0,
    rounds_late=0,
    rounds_lost=0,
    rounds_idle=0,
    worker_restarts=0,
    started_at=0.0,
)
_NO_RUN = RunSummary(
    run="",
    name="",
    task="",
    engine="",
    number=0,
    tip="",
    state_digest="",
    view=0,
    parameters=0,
    rounds_certified=0,
    samples_certified=0,
    loss_first=None,
    loss=None,
    round_seconds=None,
)


class StatusState:
    """The state behind a status.

    Made empty, changed by `fold`, read by `record`; not shared between threads.
    """

    def __init__(self) -> None:
        self.you: NodeSummary = _NOBODY
        self.run: RunSummary = _NO_RUN
        self.network = NetworkFigures()
        self.rounds: deque[RoundSummary] = deque(maxlen=KEPT_ROUNDS)  # newest first
        self.peers: dict[PeerId, PeerSummary] = {}  # in the order they were last heard of
        self.refusals: dict[str, int] = dict.fromkeys(REFUSALS, 0)
        self.refusal_said_at: dict[str, float] = {}
        self.points: list[LossPoint] = []
        self.last_point: LossPoint | None = None
        self.point_stride = 1
        self.points_seen = 0
        # Newest last.
        self.sentences: deque[tuple[int, str, EventLine]] = deque(
            maxlen=KEPT_EVENTS - KEPT_FROM_OTHERS
        )
        self.sentences_of_others: deque[tuple[int, str, EventLine]] = deque(maxlen=KEPT_FROM_OTHERS)
        self.serial = 0
        self.min_peers = 2
        self.working_on = 0  # the number of the round being worked on
        self.plan: Planned | None = None
        # The last certified round; many failed tries may have pushed it out of `rounds`.
        self.newest: RoundSummary | None = None
        self.alone = False
        self.trainer_up = False
        self.trainer_down = ""
        # The task failed too often: there is no trainer until the node is started anew.
        self.gave_up = False
        # Peers that train something else, with the first difference.
        self.other_tasks: dict[PeerId, str] = {}
        self.stuck = ""
        # What the disk did not take, and when it refused that last; empty once it took it.
        self.disk_full, self.disk_full_at = "", 0.0
        self.reputations = Reputations()
        # How the node stands with the chain; empty until it said anything.
        self.rewards = ""
        self.stopped: str | None = None
        # By code: level, and what a person has to mend.
        self.troubles: dict[str, tuple[str, str]] = {}
        # Seconds of steps since the last round was certified.
        self.computed_s = 0.0

    def who(self, peer: PeerId) -> str:
        """A peer's name for a sentence: its own, with the end of its id because names are not
        unique.
        """
        if peer == self.you.peer:
            return "you"
        known = self.peers.get(peer)
        return (
            f"{known.name} ({tail(peer)})"
            if known and known.name
            else clean(tail(peer), MAX_NAME_CHARS)
        )

    def tell(self, kind: str, sentence: EventLine, *, others: bool = False) -> None:
        """Keep a sentence; one of the same non-empty `kind` that is still the newest of its list is
        replaced.
        """
        kept = self.sentences_of_others if others else self.sentences
        if kind and kept and kept[-1][1] == kind:
            kept.pop()
        self.serial += 1
        kept.append((self.serial, kind, sentence))

    def newest_sentences(self) -> tuple[EventLine, ...]:
        """Newest first."""
        both = sorted([*self.sentences, *self.sentences_of_others], key=lambda kept: -kept[0])
        return tuple(sentence for _, _, sentence in both)

    def add_point(self, point: LossPoint) -> None:
        """Extend the curve; once it is full every second point goes, and from then on only every
        second one is kept.
        """
        if self.points_seen % self.point_stride == 0:
            if len(self.points) >= KEPT_POINTS - 1:  # one place is the last point's
                self.points = self.points[::2]
                self.point_stride *= 2
            if self.points_seen % self.point_stride == 0:
                self.points.append(point)
        self.points_seen += 1
        self.last_point = point

    def curve(self) -> tuple[LossPoint, ...]:
        """Oldest first; the last round is always in it."""
        if self.last_point is None or (self.points and self.points[-1] is self.last_point):
            return tuple(self.points)
        return (*self.points, self.last_point)
