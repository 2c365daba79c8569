"""The story of a round: what this node's journal says about it, in order.

`RoundStories` folds the journal into one `RoundStory` for each round. It keeps the newest rounds
only, so that a journal of any length takes little memory. Events of a round carry its number and
view, which are the same in the journals of all members.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from protocol import journal
from protocol.identity import PeerId
from protocol.journal import AnyEvent
from protocol.status import describe

# Events without a round number that explain what went wrong during a round.
_NOTES = (
    journal.NodeStarted,
    journal.NodeStopped,
    journal.TrainerStopped,
    journal.BatchSkipped,
    journal.WorkDropped,
    journal.Warned,
    journal.Trouble,
    journal.Stuck,
    journal.CaughtUp,
    journal.PeerDown,
    journal.PeerForgotten,
)
# Notes that are kept for each round.
MAX_NOTES = 50
# Views and phases that are kept for each round; a node alone may try a round for days.
MAX_VIEWS = 100
MAX_PHASES = 40


class PhaseStory(msgspec.Struct, kw_only=True):
    """One phase. `seconds` is None while it lasts, and where the node ended during it."""

    phase: str
    at: float
    reason: str
    seconds: float | None = None


class ViewStory(msgspec.Struct, kw_only=True):
    """One view. `leader` and `plan` are empty without a plan, `failure` unless it failed."""

    view: int
    leader: PeerId = ""
    members: tuple[PeerId, ...] = ()
    plan: str = ""
    phases: list[PhaseStory] = []
    failed_at: float | None = None
    failure: str = ""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something else that happened during the round, as a sentence."""

    at: float
    text: str


class RoundStory(msgspec.Struct, kw_only=True):
    """Everything that the journal says about one round; what `round --json` prints."""

    number: int
    run: str = ""
    run_name: str = ""
    peer: PeerId = ""
    began_at: float = 0.0
    views: list[ViewStory] = []
    trained: list[journal.Trained] = []
    # Two where the run forked; usually one.
    certificates: list[journal.RoundCertified] = []
    # Members of the plan of the round before that are not in this plan: they were late or gone.
    absent: tuple[PeerId, ...] = ()
    averaged: list[journal.RoundAveraged] = []
    # The last of them: a node alone reports the same every round.
    alone: journal.Alone | None = None
    notes: list[Note] = []

    @property
    def state(self) -> str:
        """One of "certified", "averaged", "failed", "alone" and "open"."""
        if self.certificates:
            return "certified"
        if self.averaged:
            return self.averaged[-1].outcome
        if self.alone is not None:
            return "alone"
        return "failed" if self.views and self.views[-1].failure else "open"

    def view(self, number: int) -> ViewStory:
        """The story of a view, made on first use."""
        for known in self.views:
            if known.view == number:
                return known
        made = ViewStory(view=number)
        self.views.append(made)
        del self.views[:-MAX_VIEWS]
        return made


class RoundStories:
    """The newest rounds of a journal, by run and number."""

    def __init__(self, keep: int, only: int | None = None) -> None:
        """Keep the last `keep` rounds; with `only`, just the rounds of that number."""
        self._keep = keep
        self._only = only
        self._stories: OrderedDict[tuple[str, int], RoundStory] = OrderedDict()
        self._started: journal.NodeStarted | None = None
        self._current: RoundStory | None = None
        self._phase: PhaseStory | None = None
        self._before: journal.RoundCertified | None = None
        self.first: int | None = None
        self.last: int | None = None

    def read(self, events: Iterable[AnyEvent]) -> RoundStories:
        """Fold events, oldest first."""
        for event in events:
            self._fold(event)
        return self

    @property
    def stories(self) -> list[RoundStory]:
        """Oldest first."""
        return list(self._stories.values())

    def _fold(self, event: AnyEvent) -> None:
        if isinstance(event, journal.NodeStarted):
            if self._started is not None and self._started.run != event.run:
                self._before = None
            self._started, self._phase = event, None
        match event:
            case journal.PhaseEntered():
                self._end_phase(event.at)
                self._current = story = self._story(event.number, event.at)
                phase = PhaseStory(phase=event.phase, at=event.at, reason=event.reason)
                phases = story.view(event.view).phases
                phases.append(phase)
                del phases[:-MAX_PHASES]
                self._phase = phase
            case journal.Planned():
                view = self._story(event.number, event.at).view(event.view)
                view.leader, view.members, view.plan = event.leader, event.members, event.reason
            case journal.ViewPassed():
                view = self._story(event.number, event.at).view(event.view)
                view.failed_at, view.failure = event.at, event.reason
            case journal.Trained():
                self._story(event.number, event.at).trained.append(event)
            case journal.RoundCertified():
                self._end_phase(event.at)
                self._current = story = self._story(event.number, event.at)
                story.certificates.append(event)
                if self._before is not None and self._before.number + 1 == event.number:
                    planned = set(event.members)
                    story.absent = tuple(
                        peer for peer in self._before.members if peer not in planned
                    )
                self._before = event
            case journal.RoundAveraged():
                self._story(event.number, event.at).averaged.append(event)
            case journal.Alone():
                self._story(event.number, event.at).alone = event
            case journal.NodeStopped():
                self._end_phase(event.at)
            case _:
                pass
        if isinstance(event, _NOTES) and self._current is not None:
            self._note(self._current, event)

    def _note(self, story: RoundStory, event: AnyEvent) -> None:
        peer = getattr(event, "peer", "")
        if isinstance(event, journal.PeerDown | journal.PeerForgotten):
            # Without a plan yet, the members are probably those of the round before.
            planned = [view.members for view in story.views if view.members]
            before = [self._before.members] if self._before else []
            if not any(peer in members for members in planned or before):
                return
        _, text = describe(event)
        story.notes.append(Note(at=event.at, text=text))
        del story.notes[:-MAX_NOTES]

    def _end_phase(self, at: float) -> None:
        if self._phase is not None:
            self._phase.seconds = max(0.0, at - self._phase.at)
            self._phase = None

    def _count(self, number: int) -> None:
        self.first = number if self.first is None else min(self.first, number)
        self.last = number if self.last is None else max(self.last, number)

    def _story(self, number: int, at: float) -> RoundStory:
        self._count(number)
        started = self._started
        run = started.run if started else ""
        known = self._stories.get((run, number))
        if known is not None:
            return known
        made = RoundStory(
            number=number,
            run=run,
            run_name=started.run_name if started else "",
            peer=started.peer if started else "",
            began_at=at,
        )
        if self._only is None or number == self._only:
            self._stories[run, number] = made
            while len(self._stories) > self._keep:
                self._stories.popitem(last=False)
        return made
