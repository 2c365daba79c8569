"""`/metrics`: the status in Prometheus' text format.

Names, units and labels follow https://prometheus.io/docs/practices/naming/. All values of a label
are known in advance and start at zero. A peer's id, name or address is never a label: strangers
choose them, and each would be a new time series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from daemon.observer.reward_metrics import reward_metrics
from daemon.observer.trust_metrics import labelled, phase_histogram, trust_metrics
from protocol.network.peer_health import PROBATION, QUARANTINED, TRUSTED
from protocol.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PHASES = ("train", "ready", "scatter", "reduce", "vote")
LEVELS = ("info", "good", "warning", "bad")
PATHS = {"direct": "direct", "libp2p": "libp2p", "relayed": "relayed"}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _of_rounds(status: Status) -> Iterator[Metric]:
    you, run = status.you, status.run
    yield GaugeMetricFamily(
        "hypergpu_round", "Number of the newest certificate this node has verified.", run.number
    )
    results = {
        "counted": you.rounds_counted,
        "late": you.rounds_late,
        "lost": you.rounds_lost,
        "idle": you.rounds_idle,
        "missed": you.rounds_missed,
        "observed": run.rounds_certified if you.role == "observer" else 0,
    }
    yield labelled(
        CounterMetricFamily(
            "hypergpu_rounds", "Rounds by the outcome of this node's work.", labels=["result"]
        ),
        results,
    )
    yield CounterMetricFamily(
        "hypergpu_rounds_certified", "Certificates verified.", run.rounds_certified
    )
    failures = {reason: results[reason] for reason in ("late", "lost", "missed")}
    text = "Rounds in which this node's work was not averaged."
    yield labelled(
        CounterMetricFamily("hypergpu_averaging_failures", text, labels=["reason"]), failures
    )
    last = next((known for known in status.rounds if known.outcome != "missed"), None)
    seconds = {phase: last.phase_seconds.get(phase, 0.0) if last else 0.0 for phase in PHASES}
    yield labelled(
        GaugeMetricFamily(
            "hypergpu_round_seconds", "Seconds of the last round by phase.", labels=["phase"]
        ),
        seconds,
    )
    text = "How long the phases of rounds took on this node; phase=round is between certificates."
    yield phase_histogram(text, status.totals.phases)
    interval = GaugeMetricFamily(
        "hypergpu_round_interval_seconds", "Seconds between the last two certificates."
    )
    interval.add_metric([], _number(run.round_seconds))
    yield interval
    usual = GaugeMetricFamily(
        "hypergpu_usual_round_seconds",
        "Usual seconds between two certificates; NaN before the second.",
    )
    usual.add_metric([], _number(run.usual_round_s))
    yield usual
    yield GaugeMetricFamily(
        "hypergpu_standstill",
        "1 while no certificate came in three times the usual interval, else 0.",
        float(bool(run.standstill)),
    )
    text = "Length of the next round as the last plan chose it; NaN where no plan chose one."
    length = GaugeMetricFamily("hypergpu_next_round_seconds", text)
    length.add_metric([], _number(run.next_round_s))
    yield length
    text = (
        "Relative error of the predicted exchange time, median of the last rounds;"
        " NaN before the first."
    )
    error = GaugeMetricFamily("hypergpu_prediction_error_ratio", text)
    error.add_metric([], _number(run.prediction_error))
    yield error
    text = (
        "When a certificate last counted this node's work (observer: when it last verified"
        " one); 0 for never."
    )
    yield GaugeMetricFamily(
        "hypergpu_last_counted_round_timestamp_seconds", text, you.last_counted_at
    )


def _of_training(status: Status) -> Iterator[Metric]:
    you, run = status.you, status.run
    yield CounterMetricFamily(
        "hypergpu_samples", "Samples this node has trained on.", you.samples_total
    )
    yield CounterMetricFamily(
        "hypergpu_certified_samples",
        "Samples of the whole run in verified certificates.",
        run.samples_certified,
    )
    yield CounterMetricFamily(
        "hypergpu_dropped_samples",
        "Samples of this node that became too old to offer.",
        you.samples_dropped,
    )
    yield GaugeMetricFamily(
        "hypergpu_pending_samples",
        "Samples of this node that are not certified yet.",
        you.samples_pending,
    )
    yield GaugeMetricFamily(
        "hypergpu_samples_per_second", "Samples a second on this node.", you.samples_per_second
    )
    yield GaugeMetricFamily(
        "hypergpu_run_samples_per_second",
        "Samples a second of all nodes, self-reported.",
        run.samples_per_second,
    )
    text = "Training loss that the members of the newest certificate claim; NaN before the first."
    loss = GaugeMetricFamily("hypergpu_loss", text)
    loss.add_metric([], _number(run.loss))
    yield loss
    yield from _of_held_out(status)
    text = "Restarts of the worker after it died."
    restarts = CounterMetricFamily("hypergpu_worker_restarts", text, labels=["reason"])
    yield labelled(restarts, {"died": you.worker_restarts})


def _of_held_out(status: Status) -> Iterator[Metric]:
    run = status.run
    text = "Held-out loss of the newest scored certificate, by its members; NaN before the first."
    loss = GaugeMetricFamily("hypergpu_held_out_loss", text)
    loss.add_metric([], _number(run.held_out))
    yield loss
    yield GaugeMetricFamily(
        "hypergpu_held_out_round", "Number of the newest scored certificate.", run.held_out_round
    )
    yield GaugeMetricFamily(
        "hypergpu_held_out_scored_samples",
        "Held-out samples that its members scored for the newest scored certificate.",
        run.held_out_samples,
    )
    yield GaugeMetricFamily(
        "hypergpu_held_out_scorers",
        "Members that scored the newest scored certificate.",
        run.held_out_scorers,
    )


def _of_network(status: Status) -> Iterator[Metric]:
    network = status.network
    peers = {"direct": 0.0, "libp2p": 0.0, "relayed": 0.0, "none": 0.0}
    for peer in status.peers:
        peers[PATHS.get(peer.path, "none")] += 1
    yield labelled(
        GaugeMetricFamily("hypergpu_peers", "Known peers, by path.", labels=["path"]),
        peers,
    )
    standings = {
        name: float(sum(peer.standing == name for peer in status.peers))
        for name in (TRUSTED, PROBATION, QUARANTINED)
    }
    text = "Known peers, by standing."
    yield labelled(
        GaugeMetricFamily("hypergpu_peer_standings", text, labels=["standing"]), standings
    )
    yield GaugeMetricFamily(
        "hypergpu_nodes", "Nodes training now, this one included.", status.run.nodes
    )
    yield GaugeMetricFamily("hypergpu_connections", "Open connections.", network.connections)
    moved = CounterMetricFamily(
        "hypergpu_network_bytes", "Payload bytes moved.", labels=["direction", "plane"]
    )
    moved.add_metric(["sent", "control"], network.control_sent)
    moved.add_metric(["received", "control"], network.control_received)
    moved.add_metric(["sent", "bulk"], network.bulk_sent)
    moved.add_metric(["received", "bulk"], network.bulk_received)
    yield moved
    refused = CounterMetricFamily(
        "hypergpu_refusals", "Data from other peers that was refused.", labels=["reason"]
    )
    yield labelled(refused, {reason: float(count) for reason, count in status.refusals.items()})


def _of_node(status: Status) -> Iterator[Metric]:
    you, run = status.you, status.run
    facts = {
        "version": you.version,
        "role": you.role,
        "run": run.run,
        "run_name": run.name,
        "engine": run.engine,
    }
    yield InfoMetricFamily("hypergpu_node", "What this node is.", value=facts)
    levels = {level: float(level == status.level) for level in LEVELS}
    yield labelled(
        GaugeMetricFamily(
            "hypergpu_verdict",
            "1 for the level of the verdict, 0 for the others.",
            labels=["level"],
        ),
        levels,
    )
    yield GaugeMetricFamily(
        "hypergpu_start_time_seconds", "When this node started.", you.started_at
    )


def _of_inference(status: Status) -> Iterator[Metric]:
    layers = GaugeMetricFamily(
        "hypergpu_inference_layers",
        "Layers of the models that the swarm serves, by whether anybody serves them.",
        labels=["state"],
    )
    missing = sum(one.missing for one in status.coverage)
    served = sum(one.layers for one in status.coverage) - missing
    yield labelled(layers, {"served": served, "missing": missing})
    yield GaugeMetricFamily(
        "hypergpu_inference_stages",
        "Stages of models that announce themselves.",
        sum(len(one.stages) for one in status.coverage),
    )


def _of_disk(status: Status) -> Iterator[Metric]:
    you = status.you
    yield CounterMetricFamily(
        "hypergpu_disk_written_bytes",
        "Bytes that this node wrote to its disk since its start.",
        you.disk_written_bytes,
    )
    yield GaugeMetricFamily(
        "hypergpu_disk_hourly_bytes",
        "Bytes that this node wrote to its disk in the last hour.",
        you.disk_hourly_bytes,
    )
    yield GaugeMetricFamily(
        "hypergpu_disk_refuses",
        "1 while the disk refuses to write, else 0.",
        float(bool(you.disk_refusal)),
    )


class StatusCollector(Collector):
    """One status as Prometheus metrics."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        for part in (
            _of_node,
            _of_rounds,
            _of_training,
            trust_metrics,
            _of_network,
            _of_disk,
            reward_metrics,
            _of_inference,
        ):
            yield from part(self._status)


def metrics_text(status: Status) -> bytes:
    """Render all metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)
