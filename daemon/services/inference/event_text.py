"""What happened to a generation, as a sentence for a person."""

from __future__ import annotations

from protocol.identity import short
from protocol.inference.coverage import name_layers
from protocol.inference.recovery_events import GenerationEvent, HopsReplayed, HopWasLost


def describe_event(event: GenerationEvent) -> str:
    """Return the sentence for what happened to a generation."""
    if isinstance(event, HopWasLost):
        layers = name_layers([event.layers])
        return f"Lost {short(event.peer)} with {layers} ({event.kind}): {event.detail}"
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
