"""How scores of held-out samples change the state behind a status."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from protocol import journal
from protocol.identity import PeerId
from protocol.status.run_records import HeldOutPoint, RoundSummary, RunSummary
from protocol.status.state import StatusState


def anchor_scored(state: StatusState, event: journal.AnchorScored) -> None:
    _note(state, event.certificate, state.you.peer, event.loss, event.samples)


def peer_scored(state: StatusState, event: journal.PeerScored) -> None:
    if event.peer != state.you.peer:
        _note(state, event.certificate, event.peer, event.loss, event.samples)


def _note(state: StatusState, certificate: str, peer: PeerId, value: float, samples: int) -> None:
    """Note a score, and show it in the round and in the run."""
    if not state.held_out.score(certificate, peer, value, samples):
        return
    point = state.held_out.of(certificate)
    assert point is not None, "the certificate has at least this score"
    for place, known in enumerate(state.rounds):
        if known.certificate == certificate:
            state.rounds[place] = _scored(known, point)
    if state.newest is not None and state.newest.certificate == certificate:
        state.newest = _scored(state.newest, point)
    state.run = _with_held_out(state.run, state.held_out.points())


def _scored(known: RoundSummary, point: HeldOutPoint) -> RoundSummary:
    return replace(known, held_out=point.loss, held_out_scorers=point.scorers)


def _with_held_out(run: RunSummary, points: Sequence[HeldOutPoint]) -> RunSummary:
    """Return the run with its first and its newest held-out loss."""
    first, newest = points[0], points[-1]
    return replace(
        run,
        held_out_first=first.loss,
        held_out=newest.loss,
        held_out_round=newest.number,
        held_out_samples=newest.scored,
        held_out_scorers=newest.scorers,
    )
