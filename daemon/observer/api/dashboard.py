"""The paths and messages of the original dashboard, for clients that were written for it.

Everything is computed from the same `Status` as the rest. `/ws` sends messages with the fields
`type`, `timestamp` and `data`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon.observer.history.feed_event import FeedEvent
from protocol.status import PeerSummary, Status
from protocol.status.reward_records import pays
from protocol.status.work_shares import WorkShare, work_shares

_encode = msgspec.json.Encoder().encode

TrainingState = Literal["waiting", "running", "paused", "stopped", "stalled"]
"""What the run does: before the first certificate it waits, without certificates it is stalled."""


class HealthBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/health`."""

    status: str
    timestamp: float
    version: str
    uptime_s: float


class DashboardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/status`, and the data of `connected` and of `training_*` messages."""

    as_of: float
    state: TrainingState
    message: str
    level: str
    run: str
    run_name: str
    round: int
    loss: float | None
    claimed_loss: float | None
    nodes: int
    samples_per_second: float


class DashboardMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/metrics`, and the data of `metrics_update`."""

    as_of: float
    round: int
    loss: float | None
    claimed_loss: float | None
    samples: int
    samples_per_second: float
    nodes: int
    round_seconds: float | None
    bytes_sent: int
    bytes_received: int


class DashboardNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node, as `/api/nodes` and `node_update` show it."""

    id: str
    name: str
    status: str
    device: str
    path: str
    round: int
    samples: int
    samples_per_second: float
    loss: float | None
    rtt_s: float | None
    last_seen: float
    reputation: int | None
    lost_reason: str


class NodesBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/nodes`."""

    as_of: float
    count: int
    nodes: tuple[DashboardNode, ...]


class SessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/blockchain/session`: the run, and whether it pays."""

    as_of: float
    run: str
    name: str
    owner: str
    pays: bool
    note: str


class ContributionsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/blockchain/contributions`: work in the last `rounds` certificates."""

    as_of: float
    rounds: int
    contributions: tuple[WorkShare, ...]


class ConfigBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/config`: what the run's members agreed on."""

    as_of: float
    run: str
    name: str
    task: str
    engine: str
    parameters: int
    admits: str
    owner: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of `/ws`."""

    type: str
    timestamp: float
    data: Any


def training_state(status: Status) -> TrainingState:
    """Return what the run does."""
    if status.run.order:
        return "stopped" if status.run.order == "stop" else "paused"
    if status.run.standstill:
        return "stalled"
    return "running" if status.run.rounds_certified else "waiting"


def health(status: Status) -> bytes:
    body = HealthBody(
        status="degraded" if status.level == "bad" else "ok",
        timestamp=status.as_of,
        version=status.you.version,
        uptime_s=max(0.0, status.as_of - status.you.started_at) if status.you.started_at else 0.0,
    )
    return _encode(body)


def status_body(status: Status) -> DashboardStatus:
    run = status.run
    return DashboardStatus(
        as_of=status.as_of,
        state=training_state(status),
        message=status.verdict,
        level=status.level,
        run=run.run,
        run_name=run.name,
        round=run.number,
        loss=run.held_out,
        claimed_loss=run.loss,
        nodes=run.nodes,
        samples_per_second=run.samples_per_second,
    )


def metrics_body(status: Status) -> DashboardMetrics:
    run, network = status.run, status.network
    return DashboardMetrics(
        as_of=status.as_of,
        round=run.number,
        loss=run.held_out,
        claimed_loss=run.loss,
        samples=run.samples_certified,
        samples_per_second=run.samples_per_second,
        nodes=run.nodes,
        round_seconds=run.round_seconds,
        bytes_sent=network.control_sent + network.bulk_sent,
        bytes_received=network.control_received + network.bulk_received,
    )


def node_of(peer: PeerSummary) -> DashboardNode:
    heard = "online" if peer.connected or not peer.lost_at else "offline"
    return DashboardNode(
        id=peer.peer,
        name=peer.name,
        status=heard,
        device=peer.device,
        path=peer.path,
        round=peer.number,
        samples=peer.samples,
        samples_per_second=peer.samples_per_second,
        loss=peer.loss,
        rtt_s=peer.rtt_s,
        last_seen=peer.last_seen,
        reputation=peer.reputation,
        lost_reason=peer.lost_reason,
    )


def nodes_body(status: Status) -> NodesBody:
    nodes = tuple(node_of(peer) for peer in (*status.peers, *status.lost) if peer.role == "node")
    return NodesBody(as_of=status.as_of, count=len(nodes), nodes=nodes)


def session_body(status: Status) -> SessionBody:
    run = status.run
    return SessionBody(
        as_of=status.as_of,
        run=run.run,
        name=run.name,
        owner=run.owner,
        pays=pays(run),
        note=status.rewards,
    )


def contributions_body(status: Status) -> ContributionsBody:
    shares = work_shares(status.rounds)
    certified = sum(bool(one.certificate) for one in status.rounds)
    return ContributionsBody(
        as_of=status.as_of, rounds=certified, contributions=tuple(shares.values())
    )


def config_body(status: Status) -> ConfigBody:
    run = status.run
    return ConfigBody(
        as_of=status.as_of,
        run=run.run,
        name=run.name,
        task=run.task,
        engine=run.engine,
        parameters=run.parameters,
        admits=run.admits,
        owner=run.owner,
    )


def greeting(status: Status) -> Message:
    """Return the first message of a connection."""
    return Message(type="connected", timestamp=status.as_of, data=status_body(status))


_STATE_MESSAGES = {
    "running": "training_started",
    "paused": "training_paused",
    "stopped": "training_stopped",
    "stalled": "training_error",
}


def changes(before: Status, after: Status) -> list[Message]:
    """Return the messages that tell a client what changed between two statuses."""
    at = after.as_of
    found: list[Message] = []
    state = training_state(after)
    if state != training_state(before) and state in _STATE_MESSAGES:
        found.append(Message(type=_STATE_MESSAGES[state], timestamp=at, data=status_body(after)))
    if msgspec.structs.replace(metrics_body(before), as_of=at) != metrics_body(after):
        found.append(Message(type="metrics_update", timestamp=at, data=metrics_body(after)))
    known = {node.id: node for node in nodes_body(before).nodes}
    moved = [node for node in nodes_body(after).nodes if known.get(node.id) != node]
    if moved:
        found.append(Message(type="node_update", timestamp=at, data=moved))
    return found


def message_of(event: FeedEvent) -> Message | None:
    """Return the message of one event; None where `changes` tells it."""
    if event.kind == "round" and event.round is not None:
        return Message(type="training_progress", timestamp=event.at, data=event.round)
    if event.level == "bad":
        return Message(type="training_error", timestamp=event.at, data={"message": event.text})
    return None
