"""Sentences about peers."""

from __future__ import annotations

from protocol import journal
from protocol.status.figures import count, duration, loss, phase_words, quantity, size
from protocol.status.text_parts import LeveledText, NameOf, because

_REGISTRATIONS = {
    "pending": ("info", "has not registered yet"),
    "challenged": ("info", "was asked to prove its wallet"),
    "verified": ("info", "proved its wallet, which is not registered with the chain"),
    "approved": ("good", "is registered with the chain"),
    "rejected": ("warning", "is unpaid: its proof of a wallet was wrong"),
    "expired": ("warning", "is unpaid: it did not prove its wallet in time"),
    "suspended": ("warning", "is unpaid: the chain has not heard from it lately"),
}


_PATHS = {"relayed": "through a relay", "punched": "through both routers"}


def peer_up(event: journal.PeerUp, name_of: NameOf) -> LeveledText:
    path = _PATHS.get(event.path, "directly")
    where = f" at {event.address}" if event.address else ""
    return "info", f"Connected {path} to {name_of(event.peer)}{where}."


def peer_down(event: journal.PeerDown, name_of: NameOf) -> LeveledText:
    return "warning", f"Lost the connection to {name_of(event.peer)}{because(event.reason)}"


def peer_report(event: journal.PeerReport, name_of: NameOf) -> LeveledText:
    peer, doing = name_of(event.peer), phase_words(event.phase)
    return "info", f"Heard from {peer}: round {event.number}, {doing}."


def peer_scored(event: journal.PeerScored, name_of: NameOf) -> LeveledText:
    peer, samples = name_of(event.peer), quantity(event.samples, "held-out sample")
    scored = f"{peer} scored the model of round {event.number} on {samples}"
    return "info", f"{scored}: held-out loss {loss(event.loss)}."


def peer_forgotten(event: journal.PeerForgotten, name_of: NameOf) -> LeveledText:
    peer, silent = name_of(event.peer), duration(event.silent_s)
    return "warning", f"{peer} was silent for {silent} and no longer counts as a member."


def peer_registered(event: journal.PeerRegistered, name_of: NameOf) -> LeveledText:
    level, what = _REGISTRATIONS.get(event.state, ("info", event.state))
    reason = event.reason.strip().rstrip(".")
    text = f"{name_of(event.peer)} {what}"
    # A reason of the peer's own replaces the general one.
    return level, f"{text.partition(': ')[0]}: {reason}." if reason else f"{text}."


def input_refused(event: journal.InputRefused, name_of: NameOf) -> LeveledText:
    sender = name_of(event.peer) if event.peer else "an unknown sender"
    times = f", {count(event.count)} times" if event.count > 1 else ""
    return (
        "warning",
        f"Refused input from {sender} ({event.reason}{times}){because(event.detail)}",
    )


def reach_report(event: journal.ReachReport, name_of: NameOf) -> LeveledText:
    relays = f" It relays {quantity(event.relay_sessions, 'connection')} for others."
    return (
        "warning" if event.callable is False else "info",
        f"{event.text}{relays if event.relay_sessions else ''}",
    )


def traffic_report(event: journal.TrafficReport, name_of: NameOf) -> LeveledText:
    sent = event.control_sent + event.bulk_sent
    received = event.control_received + event.bulk_received
    over = quantity(event.connections, "connection")
    return "info", f"Sent {size(sent)} and received {size(received)} over {over}."
