"""Single lines of `hypergpud status` about the network: who can call this node, and the votes."""

from __future__ import annotations

from protocol.status.figures import count, quantity, size
from protocol.status.node_records import ReachSummary
from protocol.status.run_records import RunSummary


def reach_line(reach: ReachSummary) -> str:
    """Say whether others can call this node, and what it relays; "" before that is known."""
    if not reach.text or reach.callable is None:
        return ""
    relays = (
        f" It relays {quantity(reach.relay_sessions, 'connection')} for others,"
        f" {size(reach.relayed_bytes)} so far."
        if reach.relayed_bytes
        else ""
    )
    return f"{reach.text}{relays}"


def votes_line(run: RunSummary) -> str:
    """Return what is known of the votes of a run of rules 4; "" for other runs."""
    quorum = run.quorum
    if quorum is None:
        return ""
    line = (
        f"{quantity(quorum.voters, 'voter')}, {count(quorum.connected)} connected; a full"
        f" certificate needs {count(quorum.needed)}; the last full one was number"
        f" {count(quorum.last_full)}"
    )
    return (
        f"{line}; this node goes on with fewer voters" if quorum.patient and quorum.reason else line
    )
