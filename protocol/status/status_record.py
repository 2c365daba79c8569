"""The status at one instant, from the state that the fold keeps."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.status.order_progress import order_progress
from protocol.status.peer_records import LOST_KEPT_S, PeerSummary
from protocol.status.records import Status
from protocol.status.reward_records import NO_CHAIN
from protocol.status.run_records import RunSummary
from protocol.status.standstill import recently_heard, standstill, usual_round_s
from protocol.status.state import StatusState
from protocol.status.verdict import disk_refusal, verdict_of

KEPT_NAMES = 64
"""Nodes that a status names as not following an order: as many as a plan has members."""

NO_REWARDS = "this run pays nothing: it has no chain"
NOT_KNOWN = "not known before the run is found"
NOT_CERTIFIED = "nothing: rounds of the engine hivemind carry no certificates and earn nothing"


def _order(peer: PeerSummary) -> tuple[bool, bool, str, PeerId]:
    return (not peer.connected, peer.role != "node", peer.name, peer.peer)


def _run_now(state: StatusState, now: float) -> RunSummary:
    training = recently_heard(list(state.peers.values()), now)
    is_node = state.you.role == "node" and bool(state.you.peer) and state.stopped is None
    speed = sum(peer.samples_per_second for peer in training) + (
        state.you.samples_per_second if is_node else 0.0
    )
    still, ordered = standstill(state, now), order_progress(state, now)
    return replace(
        state.run,
        nodes=len(training) + is_node,
        samples_per_second=speed,
        usual_round_s=usual_round_s(state),
        order_outcome=ordered.outcome if ordered is not None else "",
        order_training=ordered.training[:KEPT_NAMES] if ordered is not None else (),
        standstill=still[1] if still is not None and state.stopped is None else "",
    )


def _rewards(state: StatusState) -> str:
    chain = state.run.chain
    if state.run.engine == "hivemind":
        return NOT_CERTIFIED
    if state.rewards:
        return state.rewards
    if not chain:
        return NOT_KNOWN
    return NO_REWARDS if chain == NO_CHAIN else f"this run pays on {chain}"


def status_at(state: StatusState, now: float) -> Status:
    """Return the status at `now`, in unix seconds by the clock of the events' `at`.

    Pure: more events may be folded into the state afterwards.
    """
    level, sentence = verdict_of(state, now)
    return Status(
        as_of=now,
        verdict=sentence,
        level=level,
        you=replace(state.you, disk_refusal=disk_refusal(state, now)),
        totals=state.totals,
        points=state.points.points(),
        groups=state.groups,
        coverage=tuple(sorted(state.coverage.values(), key=lambda one: one.name)),
        moves=tuple(state.moves),
        run=_run_now(state, now),
        rounds=tuple(state.rounds),
        peers=tuple(sorted(state.peers.values(), key=_order)),
        network=state.network,
        refusals=dict(state.refusals),
        rewards=_rewards(state),
        money=state.money,
        events=state.newest_lines(),
        curve=state.curve.points(),
        membership=state.membership,
        held_out=state.held_out.points(),
        lost=tuple(
            peer
            for peer in sorted(state.lost.values(), key=lambda one: -one.lost_at)
            if now - peer.lost_at <= LOST_KEPT_S
        ),
    )
