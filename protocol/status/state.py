"""What the fold keeps between events. Everything is bounded, whatever the events say.

The parts are the frozen records of the status themselves. A change replaces a record, so
`status_at` copies only references.
"""

from __future__ import annotations

from collections import deque

from protocol.chain.reputation import Reputations
from protocol.identity import PeerId
from protocol.journal import REFUSALS, Planned
from protocol.status.coverage_records import CoverageSummary
from protocol.status.curve import ThinnedCurve
from protocol.status.event_lines import EventLines
from protocol.status.figures import clean, tail
from protocol.status.group_records import KEPT_MOVES, GroupMap, MemberMove
from protocol.status.held_out_scores import HeldOutScores
from protocol.status.node_records import NodeSummary
from protocol.status.peer_records import MembershipSummary, PeerSummary
from protocol.status.records import EventLine, NetworkFigures
from protocol.status.reward_records import RewardsSummary
from protocol.status.round_points import RoundPoint
from protocol.status.run_records import KEPT_ROUNDS, LossPoint, RoundSummary, RunSummary
from protocol.status.totals import Totals

KEPT_INTERVALS = 20
"""Times between certificates whose median is the usual one. It follows a changed rhythm soon."""

# As in a beacon.
MAX_NAME_CHARS = 64
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

    `fold` changes it, `status_at` reads it. It is not shared between threads.
    """

    def __init__(self) -> None:
        self.you: NodeSummary = _NOBODY
        self.run: RunSummary = _NO_RUN
        self.network = NetworkFigures()
        # The newest round comes first.
        self.rounds: deque[RoundSummary] = deque(maxlen=KEPT_ROUNDS)
        # The peer that was heard from last comes last.
        self.peers: dict[PeerId, PeerSummary] = {}
        self.totals = Totals()
        # Peers that were forgotten lately, the last one last.
        self.lost: dict[PeerId, PeerSummary] = {}
        # Seconds between the last certificates.
        self.intervals: deque[float] = deque(maxlen=KEPT_INTERVALS)
        self.refusals: dict[str, int] = dict.fromkeys(REFUSALS, 0)
        self.refusal_shown_at: dict[str, float] = {}
        self.curve: ThinnedCurve[LossPoint] = ThinnedCurve()
        self.points: ThinnedCurve[RoundPoint] = ThinnedCurve()
        # The groups of the last plan, and the members that came and went; the newest comes last.
        self.groups: GroupMap | None = None
        self.moves: deque[MemberMove] = deque(maxlen=KEPT_MOVES)
        # Tries without a certificate since the last one.
        self.failed_tries = 0
        self.held_out = HeldOutScores()
        self.membership: MembershipSummary | None = None
        self.lines = EventLines()
        self.min_peers = 2
        # The number of the current round.
        self.working_on = 0
        self.plan: Planned | None = None
        # The last certified round, which many failed tries may have pushed out of `rounds`.
        self.newest: RoundSummary | None = None
        self.alone = False
        # When the run's owner gave the last order.
        self.ordered_at = 0.0
        # Whether a person has paused training.
        self.held = False
        self.trainer_up = False
        self.trainer_down = ""
        # The task failed too often: the trainer stays down until the node starts again.
        self.gave_up = False
        # Peers that train another task, with the first difference.
        self.other_tasks: dict[PeerId, str] = {}
        self.stuck = ""
        # What could not be written, and when that last failed; empty once it was written.
        self.disk_full, self.disk_full_at = "", 0.0
        self.reputations = Reputations()
        # The sentence of the last chain report, or empty, and what the chain holds.
        self.rewards = ""
        self.money: RewardsSummary | None = None
        # Served models by id; the one reported last comes last.
        self.coverage: dict[str, CoverageSummary] = {}
        self.stopped: str | None = None
        # For each code, the level and what a person has to correct.
        self.troubles: dict[str, tuple[str, str]] = {}
        # Seconds of training since the last round was certified.
        self.computed_s = 0.0

    def name_of(self, peer: PeerId) -> str:
        """Return a peer's name for a sentence, with the end of its id: names are not unique."""
        if peer == self.you.peer:
            return "you"
        known = self.peers.get(peer) or self.lost.get(peer)
        return (
            f"{known.name} ({tail(peer)})"
            if known and known.name
            else clean(tail(peer), MAX_NAME_CHARS)
        )

    def newest_lines(self) -> tuple[EventLine, ...]:
        """Return the kept lines, the newest first."""
        return self.lines.newest()
