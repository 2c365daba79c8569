"""Metrics of trust and of phases: clipped work, audits, voters, and how long phases took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from protocol.status import Status
from protocol.status.totals import BOUNDS_S, PhaseTimes


def labelled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float]
) -> Metric:
    """Add one value for each label to a family, and return it."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def phase_histogram(text: str, phases: Mapping[str, PhaseTimes]) -> Metric:
    """Return the histogram of the phases of rounds."""
    family = HistogramMetricFamily("hypergpu_phase_seconds", text, labels=["phase"])
    for phase, times in phases.items():
        bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, accumulate(times.counts), strict=True))
        family.add_metric([phase], buckets=buckets, sum_value=times.sum_s)
    return family


def trust_metrics(status: Status) -> Iterator[Metric]:
    """Yield what was clipped, degraded and audited, and how many voters are connected."""
    totals = status.totals
    yield CounterMetricFamily(
        "hypergpu_clipped_contributions",
        "Contributions that a cap or the clip bounded.",
        totals.clipped,
    )
    yield CounterMetricFamily(
        "hypergpu_degraded_certificates",
        "Certificates that not more than half of the voters signed.",
        totals.degraded,
    )
    audits = {
        "for": float(totals.audits_for),
        "against": float(totals.audits_against),
        "open": float(totals.audits_open),
    }
    yield labelled(
        CounterMetricFamily(
            "hypergpu_audits", "Audits by this node, by what it then said.", labels=["verdict"]
        ),
        audits,
    )
    quorum = status.run.quorum
    voters = {
        "all": float(quorum.voters) if quorum else 0.0,
        "connected": float(quorum.connected) if quorum else 0.0,
        "needed": float(quorum.needed) if quorum else 0.0,
    }
    yield labelled(
        GaugeMetricFamily(
            "hypergpu_voters",
            "Voters of the run, those connected, and those a full certificate needs.",
            labels=["kind"],
        ),
        voters,
    )
