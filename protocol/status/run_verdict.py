"""The verdict of an observer, which takes no part in rounds: how the run goes."""

from __future__ import annotations

from protocol.status.figures import count, duration, loss, quantity
from protocol.status.peer_records import PeerSummary
from protocol.status.state import StatusState
from protocol.status.text_parts import LeveledText


def run_seen(state: StatusState, training: list[PeerSummary]) -> LeveledText:
    """Say how the run goes, for an observer."""
    run = state.run
    last = state.newest
    if last is None:
        if not training:
            return "warning", "No node is training yet; waiting for the nodes of this run"
        if run.engine == "hivemind":
            furthest = max(peer.number for peer in training)
            nodes = quantity(len(training), "node is", "nodes are")
            return (
                "info",
                f"{nodes} training, at round {count(furthest)} (self-reported); "
                "the engine hivemind has no certificates",
            )
        nodes = quantity(len(training), "node is", "nodes are")
        return "info", f"{nodes} training; no round is certified yet"
    part = f"the last with {len(last.contributors)} of {quantity(len(last.members), 'member')}"
    sentence = f"{quantity(run.rounds_certified, 'round')} certified, {part}"
    if run.held_out is not None:
        sentence += f"; loss {loss(run.held_out_first)} → {loss(run.held_out)} (held out)"
    if run.loss_first is not None and run.loss is not None:
        sentence += f"; claimed loss {loss(run.loss_first)} → {loss(run.loss)}"
    if run.round_seconds is not None:
        sentence += f"; a round every {duration(run.round_seconds)}"
    missed = sum(known.outcome == "missed" for known in state.rounds)
    if missed:
        sentence += f"; {quantity(missed, 'try', 'tries')} failed"
    if not training:
        return "warning", f"{sentence}; no node is training now"
    return "good", sentence
