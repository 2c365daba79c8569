"""The story of a round as text. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence

from daemon.cli.terminal.columns import wrapped
from daemon.round_story import PhaseStory, RoundStory, ViewStory
from protocol.identity import PeerId
from protocol.journal import RoundAveraged, RoundCertified
from protocol.status.figures import clean, count, duration, loss, phase_words, quantity, tail
from protocol.status.round_text import bounded

WIDTH = 100
# Columns of the time and the phase in a line of a view.
CLOCK, PHASE = 10, 24
MAX_SENTENCE = 400
OUTCOMES = {
    "counted": "Your work counted.",
    "late": "Your work was too late for the plan; it counts in a later round.",
    "lost": "Your work did not arrive in time; it counts in a later round.",
    "idle": "This node had nothing to offer.",
    "observed": "This node only verified the certificate.",
}
AVERAGED = {
    "averaged": "This node applied the mean. An engine without certificates proves nothing.",
    "partial": "Parts of the mean were missing, so this node applied nothing.",
    "apart": "This node's parameters diverge from the majority's, so it loads the majority's.",
    "failed": "No mean was computed.",
}


def round_text(story: RoundStory, width: int | None = None) -> str:
    """Return the whole story, its result first."""
    room = min(width or WIDTH, WIDTH)
    blocks = [[headline(story)]]
    blocks += [_view(story, view, room) for view in story.views]
    blocks += [_certificate(story, one, room) for one in story.certificates]
    blocks += [_averaged(story, one, room) for one in story.averaged]
    if story.notes:
        notes = [
            f"  {_clock(note.at)}  {_prose(note.text, room, CLOCK + 2)}" for note in story.notes
        ]
        blocks.append(["Also during this round", *notes])
    return "\n\n".join("\n".join(block) for block in blocks)


def headline(story: RoundStory) -> str:
    """Return what became of the round, in one line."""
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(story.began_at))
    run = f" of {clean(story.run_name, 64)} ({story.run[:8]})" if story.run else ""
    return f"Round {story.number}{run}, from {day} UTC: {_result(story)}."


def _result(story: RoundStory) -> str:
    failed = sum(1 for view in story.views if view.failure)
    after = f" after {quantity(failed, 'failed view')}" if failed else ""
    match story.state:
        case "certified":
            last = story.certificates[-1]
            return f"certified in view {last.view}{after}, {quantity(last.samples, 'sample')}"
        case "averaged":
            return f"averaged, {quantity(story.averaged[-1].samples, 'sample')}"
        case "alone":
            waiting = story.alone.samples_pending if story.alone else 0
            return f"no other node took part; {quantity(waiting, 'sample')} are kept"
        case "open":
            return f"not finished{after}"
        case state:
            return f"{state}{after}"


def _view(story: RoundStory, view: ViewStory, room: int) -> list[str]:
    head = f"View {view.view}"
    if view.leader:
        head += f", led by {_name(story, view.leader)}, {quantity(len(view.members), 'member')}"
    lines = [head]
    if view.plan:
        lines.append(f"  plan: {_prose(view.plan, room, 8)}")
    lines += [_phase(phase, room) for phase in view.phases]
    if view.failed_at is not None:
        lines.append(
            f"  {_clock(view.failed_at)}  FAILED: {_prose(view.failure, room, CLOCK + 10)}"
        )
    return lines


def _phase(phase: PhaseStory, room: int) -> str:
    took = duration(phase.seconds) if phase.seconds is not None else "not over"
    head = f"{phase_words(phase.phase)[: PHASE - 1]:<{PHASE}}{took:>8}  "
    return f"  {_clock(phase.at)}  {head}{_prose(phase.reason, room, CLOCK + PHASE + 12)}".rstrip()


def _certificate(story: RoundStory, made: RoundCertified, room: int) -> list[str]:
    counted = {share.peer for share in made.shares}
    lost = [peer for peer in made.members if peer not in counted]
    samples = f"{quantity(made.samples, 'sample')} of {quantity(len(made.shares), 'member')}"
    shares = ", ".join(f"{_name(story, one.peer)} {count(one.samples)}" for one in made.shares)
    phases = ", ".join(f"{name} {duration(took)}" for name, took in made.phase_seconds.items())
    # An observer sees the certificate, but no view.
    shown_above = any(view.view == made.view and view.plan for view in story.views)
    rows = [
        ("at", f"{_clock(made.at)}, in view {made.view}"),
        ("parent", made.parent[:16]),
        ("signed by", _names(story, made.voters) or "not recorded by this version"),
        ("samples", samples),
        ("claimed", f"loss {loss(made.loss)}" if made.loss is not None else ""),
        ("counted", shares or "nobody"),
        ("bounded", _bounded(story, made)),
        ("lost", f"{_names(story, lost)} (planned, but not counted)" if lost else ""),
        ("absent", f"{_names(story, story.absent)} (in the round before)" if story.absent else ""),
        ("why", made.reason),
        ("plan", "" if shown_above else made.plan),
        ("this node", OUTCOMES.get(made.outcome, made.outcome)),
        ("its time", phases),
    ]
    return [f"Certificate {made.certificate[:16]}", *_table(rows, room)]


def _bounded(story: RoundStory, made: RoundCertified) -> str:
    """Say what caps and the clip took from each contribution, as far as they took anything."""
    taken = [(one.peer, bounded(one)) for one in made.shares]
    return "; ".join(f"{_name(story, peer)}: {what}" for peer, what in taken if what)


def _averaged(story: RoundStory, made: RoundAveraged, room: int) -> list[str]:
    phases = ", ".join(f"{name} {duration(took)}" for name, took in made.phase_seconds.items())
    rows = [
        ("at", _clock(made.at)),
        ("with", _names(story, [share.peer for share in made.shares])),
        ("result", AVERAGED.get(made.outcome, made.outcome)),
        ("why", made.reason),
        ("its time", phases),
    ]
    return ["Averaging without a certificate", *_table(rows, room)]


def _table(rows: Sequence[tuple[str, str]], room: int) -> list[str]:
    return [f"  {label:<11}{_prose(text, room, 13)}" for label, text in rows if text]


def _prose(text: str, room: int, indent: int) -> str:
    return wrapped(clean(text, MAX_SENTENCE), room, indent)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at))


def _names(story: RoundStory, peers: Sequence[PeerId]) -> str:
    return ", ".join(_name(story, peer) for peer in peers)


def _name(story: RoundStory, peer: PeerId) -> str:
    return "this node" if peer == story.peer else tail(peer)
