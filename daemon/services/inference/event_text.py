"""What happened to a generation, as a sentence for a person."""

from __future__ import annotations

from protocol.identity import short
from protocol.inference.audit import StageAudited
from protocol.inference.coverage import name_layers
from protocol.inference.recovery_events import GenerationEvent, HopsReplayed, HopWasLost


def describe_event(event: GenerationEvent) -> str:
    """Return the sentence for what happened to a generation."""
    if isinstance(event, HopWasLost):
        layers = name_layers([event.layers])
        return f"Lost {short(event.peer)} with {layers} ({event.kind}): {event.detail}"
    if isinstance(event, StageAudited):
        return _describe_audit(event)
    if isinstance(event, HopsReplayed):
        peers = ", ".join(short(peer) for peer in event.peers)
        bits = "the same bits" if event.exact else "other last bits"
        return (
            f"{peers} took over {name_layers([event.layers])} after {event.seconds:.1f} s:"
            f" {event.tokens} tokens again, {bits}."
        )
    layers = name_layers(event.missing)
    if event.full:
        return f"No stage of {layers} has room. Waiting for one."
    return f"Nobody serves {layers}. Waiting for a stage."


def _describe_audit(audited: StageAudited) -> str:
    who, layers = short(audited.peer), name_layers([audited.layers])
    if audited.verdict == "unaudited":
        return f"No second holder of {layers} could audit {who}."
    compared = (
        f"{short(audited.auditor)} repeated {layers} of {who}: they differ by {audited.error:.1e}"
    )
    if audited.verdict == "agrees":
        return f"{compared}, as honest stages do."
    if audited.wrong:
        return (
            f"{compared}, and a third holder finds {short(audited.wrong)} wrong. This node uses"
            " that stage no more."
        )
    return f"{compared}, and no third holder decides which of them is wrong."
