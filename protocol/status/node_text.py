"""Sentences about the node itself, its disk and its chain."""

from __future__ import annotations

from protocol import journal
from protocol.status.figures import count, duration, quantity, size, tail, tokens
from protocol.status.text_parts import LeveledText, NameOf, because

_CHAIN = {
    "none": ("warning", "This node trains unpaid: it has no wallet for this run"),
    "waiting": (
        "info",
        "Not registered with the chain yet; this happens when training begins",
    ),
    "locked": ("warning", "This node trains unpaid: its wallet is locked"),
    "down": ("warning", "Training continues unpaid: the chain is unreachable"),
    "refused": ("warning", "Training continues unpaid: the chain refused"),
    "wrong": (
        "bad",
        "Training continues unpaid: the endpoint serves another chain than the run's",
    ),
}


def node_started(event: journal.NodeStarted, name_of: NameOf) -> LeveledText:
    what = "Observing" if event.role == "observer" else "Started"
    text = f"{what} as {event.name or tail(event.peer)} in run {event.run_name or event.run[:8]}."
    return "info", " ".join([text, *event.assumed])


def node_stopped(event: journal.NodeStopped, name_of: NameOf) -> LeveledText:
    return "info", f"Stopped{because(event.reason)}"


_ORDERS = {
    "start": ("good", "The run's owner lets training go on."),
    "pause": ("warning", "The run's owner paused training on every node."),
    "stop": ("warning", "The run's owner stopped training on every node."),
}


def owner_ordered(event: journal.OwnerOrdered, name_of: NameOf) -> LeveledText:
    return _ORDERS.get(event.action, ("info", f"The run's owner ordered {event.action!r}."))


def addresses_changed(event: journal.AddressesChanged, name_of: NameOf) -> LeveledText:
    return "info", f"Others join at {', '.join(event.addresses) or 'no address'}"


def warned(event: journal.Warned, name_of: NameOf) -> LeveledText:
    return "warning", f"{event.message} [{event.code}]"


def trouble(event: journal.Trouble, name_of: NameOf) -> LeveledText:
    if not event.message:
        return "info", f"Resolved [{event.code}]"
    return ("bad" if event.level == "bad" else "warning"), f"{event.message} [{event.code}]"


def checkpoint_written(event: journal.CheckpointWritten, name_of: NameOf) -> LeveledText:
    took = duration(event.seconds)
    return "info", f"Round {event.number} is on disk: {size(event.size_bytes)} in {took}."


def disk_report(event: journal.DiskReport, name_of: NameOf) -> LeveledText:
    hourly = size(event.hourly_bytes)
    return "info", f"Wrote {size(event.written_bytes)} to disk, {hourly} in the last hour."


def clock_report(event: journal.ClockReport, name_of: NameOf) -> LeveledText:
    if event.text:
        return "warning", f"{event.text}."
    peers = "1 peer" if event.compared == 1 else f"{count(event.compared)} peers"
    return "info", f"This machine's clock agrees with those of {peers}."


def chain_report(event: journal.ChainReport, name_of: NameOf) -> LeveledText:
    if event.state != "live":
        level, what = _CHAIN.get(event.state, ("info", event.state))
        reason = event.reason.strip().rstrip(".")
        return level, f"{what} ({reason})." if reason else f"{what}."
    paid = f" to {event.payout}" if event.payout else ""
    samples = f"{count(event.samples)} {'sample' if event.samples == 1 else 'samples'}"
    claimed = f"; {tokens(int(event.claimed))} tokens claimed" if event.claimed.isdecimal() else ""
    return "good", f"Paid on {event.profile}{paid}: {samples} reported to the chain{claimed}."


def rewards_report(event: journal.RewardsReport, name_of: NameOf) -> LeveledText:
    pool = f"The pool of {event.profile} holds {_tokens(event.pool)}"
    if not event.account:
        return "info", f"{pool}."
    claimable, pending = _tokens(event.claimable), _tokens(event.pending)
    return "info", f"{pool}; {claimable} claimable here, {pending} pending."


def _tokens(amount: str) -> str:
    return f"{tokens(int(amount)) if amount.isdecimal() else '?'} tokens"


def coverage_report(event: journal.CoverageReport, name_of: NameOf) -> LeveledText:
    return "info", f"{quantity(len(event.stages), 'stage')} of {event.name} known."


def coverage_changed(event: journal.CoverageChanged, name_of: NameOf) -> LeveledText:
    if event.missing:
        return "warning", f"Nobody serves {event.missing} of {event.name}."
    after = f" again, after {duration(event.gap_s)}" if event.gap_s > 0 else ""
    stages = quantity(event.stages, "stage")
    return "good", f"All layers of {event.name} are served{after}, by {stages}."
