"""Sentences about rounds."""

from __future__ import annotations

from protocol import journal
from protocol.status.figures import (
    count,
    duration,
    loss,
    phase_words,
    quantity,
    round_numbers,
    size,
)
from protocol.status.text_parts import LeveledText, NameOf, because

_OUTCOMES = {
    "late": ("warning", "Your work was late and counts in a later round"),
    "lost": ("warning", "Your work did not arrive and is offered again"),
    "idle": ("info", "You had nothing to offer"),
}

_AVERAGED = {
    "averaged": ("info", "was averaged"),
    "partial": ("warning", "was averaged only in part; your work waits for the next round"),
    "apart": ("warning", "was skipped: this node's parameters diverge from the majority's"),
    "failed": ("warning", "failed; your work waits for the next round"),
}


def phase_entered(event: journal.PhaseEntered, name_of: NameOf) -> LeveledText:
    return "info", f"Round {event.number}, {phase_words(event.phase)}{because(event.reason)}"


def planned(event: journal.Planned, name_of: NameOf) -> LeveledText:
    return "info", planned_text(event, name_of, (event.number, event.number))


def planned_text(event: journal.Planned, name_of: NameOf, rounds: tuple[int, int]) -> str:
    """Return the sentence for the plans of consecutive rounds, of which `event` is the last."""
    leader, members = name_of(event.leader), quantity(len(event.members), "member")
    reason = f"; {event.reason.strip().rstrip('.')}" if event.reason.strip() else ""
    if rounds[0] != rounds[1]:
        plan = "Planned"
    else:
        plan = "Planned" if leader == "you" else f"Plan of {leader} for"
    return f"{plan} {round_numbers(*rounds)}: {members}{reason}."


def view_passed(event: journal.ViewPassed, name_of: NameOf) -> LeveledText:
    again = "" if event.view == 0 else f" (try {event.view + 1})"
    return "warning", f"Round {event.number} failed{again}{because(event.reason)} Retrying."


def round_certified(event: journal.RoundCertified, name_of: NameOf) -> LeveledText:
    level, _ = certified_words(event, name_of)
    return level, certified_text(event, name_of, (event.number, event.number), event.samples)


def certified_text(
    event: journal.RoundCertified, name_of: NameOf, rounds: tuple[int, int], samples: int
) -> str:
    """Return the sentence for consecutive certificates, of which `event` is the last."""
    part = f"{len(event.shares)} of {quantity(len(event.members), 'member')} counted"
    claimed = f", claimed loss {loss(event.loss)}" if event.loss is not None else ""
    first, last = rounds
    what = f"Round {last} is" if first == last else f"Rounds {first}-{last} are"
    head = f"{what} certified: {part}, {quantity(samples, 'sample')}{claimed}."
    _, words = certified_words(event, name_of)
    return f"{head} {words}" if words else head


def certified_words(event: journal.RoundCertified, name_of: NameOf) -> LeveledText:
    """Return the level of a certificate, and what it says beside its counts."""
    if event.outcome == "counted":
        less = next((bounded(share) for share in event.shares if name_of(share.peer) == "you"), "")
        return "good", f"Your work counted{because(less)}" if less else "Your work counted."
    if event.outcome == "observed":
        # Where all members counted, the leader's reason says nothing new.
        explains = event.reason and len(event.shares) < len(event.members)
        return "info", event.reason if explains else ""
    level, yours = _OUTCOMES.get(event.outcome, ("info", event.outcome))
    return level, f"{yours}{because(event.reason)}" if yours else ""


def bounded(share: journal.Contributor) -> str:
    """Say what caps and the clip took from one contribution; empty where they took nothing."""
    taken: list[str] = []
    if share.weight is not None and share.weight < share.samples:
        taken.append(f"{count(share.weight)} of {quantity(share.samples, 'sample')} counted")
    if share.kept is not None and share.is_clipped:
        taken.append(f"the clip left {share.kept:.0%} of the work")
    return " and ".join(taken)


def round_averaged(event: journal.RoundAveraged, name_of: NameOf) -> LeveledText:
    level, what = _AVERAGED.get(event.outcome, ("info", event.outcome))
    has_loss = event.loss is not None and event.outcome == "averaged"
    at_loss = f", loss {loss(event.loss)}" if has_loss else ""
    return level, f"Round {event.number} {what}{at_loss}{because(event.reason)}"


def quorum_report(event: journal.QuorumReport, name_of: NameOf) -> LeveledText:
    counts = f"{count(event.connected)} of {quantity(event.voters, 'voter')} connected"
    if event.reason:
        return "warning", f"Nothing is certified{because(event.reason)}"
    return "info", f"{counts}; a full certificate needs {count(event.needed)}"


def alone(event: journal.Alone, name_of: NameOf) -> LeveledText:
    kept = quantity(
        event.samples_pending, "sample is kept and counts", "samples are kept and count"
    )
    return "warning", f"Waiting for more nodes. {kept} once enough of them join."


def caught_up(event: journal.CaughtUp, name_of: NameOf) -> LeveledText:
    what, source = size(event.size_bytes), name_of(event.source)
    took = duration(event.seconds)
    of = " of results" if event.replayed else ""
    return "good", f"Caught up with round {event.number}: {what}{of} from {source} in {took}."


def stuck(event: journal.Stuck, name_of: NameOf) -> LeveledText:
    return "bad", f"Cannot continue{because(event.reason)}"
