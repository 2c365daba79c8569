"""The diagram of a round, drawn from the transition table.

`python -m protocol.round.diagram` prints the diagram that docs/internals/round.md shows.

A Mermaid state diagram (https://mermaid.js.org/syntax/stateDiagram.html) with one arrow for each
pair of phases; the events that can lead along it are its label. Events that leave a node in its
phase are not drawn: `TABLE` has them.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.round.events import Event
from protocol.round.machine import TABLE
from protocol.round.phase import Phase

BEGIN = "<!-- round:begin -->"
END = "<!-- round:end -->"

WORDS = {
    "DeadlinePassed": "deadline",
    "TrainingFinished": "steps done",
    "OfferMade": "offer is durable",
    "LivePeersChanged": "members change",
    "PeerLost": "peer lost",
    "ReadyReceived": "others are ahead",
    "PlanReceived": "plan",
    "ContributionsReceived": "slices received",
    "HoldReportReceived": "hold report",
    "WithdrawalReceived": "withdrawal",
    "InclusionReceived": "inclusion",
    "ResultReceived": "result",
    "OutcomeComputed": "state computed",
    "VoteReceived": "vote",
    "CertificateReceived": "certificate",
    "ForkFound": "other branch found",
    "RecoveryFound": "owner's recovery",
    "RecoveryFailed": "no state of it",
    "MergePrepared": "average computed",
    "CertificateAdopted": "adopted",
    "StateBytesReceived": "state bytes",
    "StateReceived": "state received",
    "StateUnavailable": "state unavailable",
    "ViewNotPersisted": "disk is full",
}
"""The events in words for people."""


def arrows() -> dict[tuple[Phase, Phase], list[type[Event]]]:
    """The events that can lead from one phase to another, in the table's order."""
    found: dict[tuple[Phase, Phase], list[type[Event]]] = {}
    for (phase, event), (_, leads_to) in TABLE.items():
        for other in leads_to - {phase}:
            found.setdefault((phase, other), []).append(event)
    return found


def draw() -> str:
    """The diagram as a fenced Mermaid block, ending without a line feed.

    The same text for the same table.
    """
    phases = list(Phase)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {phases[0].value}"]
    for (phase, other), events in sorted(
        arrows().items(), key=lambda arrow: tuple(phases.index(end) for end in arrow[0])
    ):
        lines.append(f"    {phase.value} --> {other.value}: {label(events)}")
    return "\n".join([*lines, "```"])


def label(events: Iterable[type[Event]]) -> str:
    """The label of an arrow: the event's word, or else its class name."""
    return ", ".join(WORDS.get(event.__name__, event.__name__) for event in events)


def block() -> str:
    """The part of docs/internals/round.md between the markers, markers included."""
    return f"{BEGIN}\n{draw()}\n{END}"


if __name__ == "__main__":
    print(draw())
