"""Invariants of the round, which hold under any faults of the network.

The cluster checks them at every step and every message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from protocol.certificates.merge import merge_round
from protocol.digest import Digest
from protocol.messages.base import MAX_REASON_CHARS, Message
from protocol.messages.round import Inclusion, Plan, Vote
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import TABLE
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.round.transitions import PEERS_KEPT
from protocol.round.vote_phase import OUTCOMES_KEPT

AT_WORK = {Phase.OFFER, Phase.MERGE, Phase.ADOPT, Phase.FETCH}
"""Phases that the engine's own work ends; every other phase has a deadline."""


def check_step(
    before: RoundState, event: e.Event, after: RoundState, actions: Sequence[a.Action]
) -> None:
    """Check that one step followed the table and kept the bounds."""
    entry = TABLE.get((before.phase, type(event)))
    if entry is None:
        assert after is before
        assert not actions, f"the table has no {type(event).__name__} in {before.phase.value}"
        return
    assert after.phase in entry[1]
    assert after.phase in AT_WORK or after.deadline < math.inf, f"nothing ends {after.phase.value}"
    assert len(after.readies) <= PEERS_KEPT
    assert len(after.votes) <= OUTCOMES_KEPT
    assert len(after.outcomes) <= OUTCOMES_KEPT
    if any(isinstance(action, a.PublishCertificate) for action in actions):
        assert after.phase is Phase.ADOPT, "publishes a certificate without adopting it"
    if after.parent == before.parent and after.phase is not Phase.MERGE:
        assert after.view >= before.view, "returns to an earlier view"


class Transcript:
    """The messages of one node in all its lives: each may be sent once."""

    def __init__(self) -> None:
        self._votes: dict[tuple[Digest, int], Vote] = {}
        self._plans: dict[tuple[Digest, int], Plan] = {}
        self._inclusions: dict[tuple[Digest, int], Inclusion] = {}
        self._scattered: set[tuple[Digest, int]] = set()
        self._reached: dict[Digest, int] = {}

    def begin_new_life(self) -> None:
        """Begin a new life, which may return to a view in which only an offer was sent."""
        self._reached.clear()

    def check_durable(self, message: Message, view_records: Mapping[Digest, int]) -> None:
        """Check that the view of a plan or vote is on disk before the message is sent."""
        match message:
            case Vote():
                parent = merge_round(message.parents)
            case Plan():
                parent = message.parent
            case _:
                return
        assert view_records.get(parent, 0) > message.view, (
            f"a {type(message).__name__} of view {message.view} that a restart would forget"
        )

    def check_view(self, state: RoundState) -> None:
        """Check that the node never returns to an earlier view of a round, also after a merge."""
        if state.phase not in AT_WORK and state.phase is not Phase.TRAIN:
            assert state.view >= self._reached.get(state.parent, 0), (
                f"returns to view {state.view} from {self._reached[state.parent]}"
            )
            self._reached[state.parent] = state.view

    def check(self, message: Message) -> None:
        match message:
            case Vote():
                key = (merge_round(message.parents), message.view)
                assert self._votes.setdefault(key, message) == message, (
                    f"two votes in view {message.view}"
                )
            case Plan():
                assert self._plans.setdefault((message.parent, message.view), message) == message, (
                    f"two plans in view {message.view}"
                )
                assert len(message.reason) <= MAX_REASON_CHARS
            case Inclusion():
                assert (
                    self._inclusions.setdefault((message.plan, message.number), message) == message
                ), f"two inclusions with number {message.number}"
                assert len(message.reason) <= MAX_REASON_CHARS

    def check_scatter(self, plan: OpenPlan) -> None:
        key = (plan.plan.parent, plan.plan.view)
        assert key not in self._scattered, f"scatters twice in view {key[1]}"
        self._scattered.add(key)
