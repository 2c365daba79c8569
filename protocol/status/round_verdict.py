"""The part of the verdict that says how this node's last rounds went.

One sentence is for rounds with certificates, the other for those of an engine without certificates.
"""

from __future__ import annotations

from collections import Counter

from protocol.status.figures import count, quantity
from protocol.status.state import StatusState
from protocol.status.text_parts import LeveledText

UNCERTIFIED = ("averaged", "partial", "apart", "failed")
"""The outcomes of rounds without certificates."""


def own_rounds(state: StatusState) -> LeveledText | None:
    """Say how many of the last rounds counted, and what became of the others."""
    outcomes = Counter(known.outcome for known in state.rounds)
    own = [outcomes[word] for word in ("counted", "late", "lost", "idle")]
    counted, late, lost, idle = own
    total = sum(own)
    if not total:
        return None
    if total == 1:
        sentence = "Your first round counted" if counted else "Your first round did not count"
    elif counted == total:
        sentence = f"All of your last {count(total)} rounds counted"
    else:
        sentence = f"{counted} of your last {count(total)} rounds counted"
    why = []
    if late:
        why.append(f"{late} late")
    if lost:
        why.append(f"{lost} lost")
    if idle:
        why.append(f"{idle} with nothing to offer")
    if outcomes["missed"]:
        why.append(
            quantity(
                outcomes["missed"],
                "try failed",
                "tries failed",
            )
        )
    sentence += f"; {', '.join(why)}" if why else ""
    offered = total - idle
    if offered and counted * 10 >= offered * 9:
        return _clipped(state) or ("good", sentence)
    return (
        "bad" if offered >= 5 and counted * 2 < offered else "warning" if offered else "info"
    ), sentence


def _clipped(state: StatusState) -> LeveledText | None:
    """Say that the last round clipped the work of more than a third of its contributors."""
    last = state.newest
    if last is None or 3 * len(last.clipped) <= len(last.contributors):
        return None
    return (
        "warning",
        f"Round {last.number} clipped the work of {len(last.clipped)} of "
        f"{quantity(len(last.contributors), 'contributor')}: it was much longer than the voters' "
        f"work. To see whose: hypergpud round {last.number}",
    )


def averaged_rounds(state: StatusState) -> LeveledText | None:
    """Say how the last rounds of an engine without certificates went."""
    outcomes = Counter(known.outcome for known in state.rounds if known.outcome in UNCERTIFIED)
    total = outcomes.total()
    if not total:
        return None
    averaged = outcomes["averaged"]
    last = (
        "Your last round was"
        if total == 1
        else f"{averaged} of your last {count(total)} rounds were"
    )
    sentence = f"{last} averaged" if total > 1 or averaged else "Your first round was not averaged"
    troubles = {"partial": "only in part", "apart": "spent catching up", "failed": "failed"}
    why = [
        f"{outcomes[outcome]} {words}" for outcome, words in troubles.items() if outcomes[outcome]
    ]
    sentence += (
        f" ({', '.join(why)})" if why else ""
    ) + "; hivemind's rounds carry no certificates and earn nothing"
    return ("info" if averaged * 10 >= total * 9 else "warning"), sentence
