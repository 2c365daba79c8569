"""Classes that change when three measurements agree; quarantine and probation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.network.peer_health import (
    PROBATION,
    QUARANTINE_S,
    QUARANTINED,
    TRUSTED,
    PeerHealth,
    look,
    saw,
)
from protocol.network.quality import AGREEING, LinkMeasurement, LinkQuality, observe, score

MIDDLES = {
    "perfect": LinkMeasurement(rtt_s=0.0005, jitter_s=0, loss=0, bits_per_second=1e9),
    "good": LinkMeasurement(rtt_s=0.030, jitter_s=0.005, loss=0.001, bits_per_second=100e6),
    "average": LinkMeasurement(rtt_s=0.100, jitter_s=0.020, loss=0.01, bits_per_second=50e6),
    "poor": LinkMeasurement(rtt_s=0.225, jitter_s=0.050, loss=0.05, bits_per_second=10e6),
    "unstable": LinkMeasurement(rtt_s=0.275, jitter_s=0.100, loss=0.10, bits_per_second=20e6),
}


def after(quality: LinkQuality, *measured: LinkMeasurement) -> LinkQuality:
    for one in measured:
        quality = observe(quality, one)
    return quality


@pytest.mark.parametrize("name", MIDDLES)
def test_each_profile_is_in_its_own_class_and_says_why(name: str) -> None:
    quality = after(LinkQuality(), *[MIDDLES[name]] * AGREEING)
    assert quality.name == name
    assert f"{1000 * MIDDLES[name].rtt_s:.0f} ms" in quality.reason
    assert quality.reason.startswith(f"{name}: ")
    assert "3 measurements agree" in quality.reason


def test_a_class_changes_only_when_three_agree() -> None:
    good = after(LinkQuality(), *[MIDDLES["good"]] * 3)
    assert after(good, *[MIDDLES["poor"]] * 2).name == "good"
    assert (
        after(
            good,
            MIDDLES["poor"],
            MIDDLES["poor"],
            MIDDLES["good"],
            MIDDLES["poor"],
            MIDDLES["poor"],
        ).name
        == "good"
    )
    assert (
        after(good, MIDDLES["poor"], MIDDLES["poor"], MIDDLES["average"], MIDDLES["poor"]).name
        == "good"
    )
    assert after(good, *[MIDDLES["poor"]] * 3).name == "poor"
    assert after(LinkQuality(), *[MIDDLES["good"]] * 2).name == "unknown"


@given(
    rtt=st.floats(0, 10),
    jitter=st.floats(0, 10),
    loss=st.none() | st.floats(0, 1),
    bits=st.none() | st.floats(0, 1e12),
    worse=st.floats(0, 1),
)
def test_a_score_is_0_to_100_and_worse_is_never_better(
    rtt: float, jitter: float, loss: float | None, bits: float | None, worse: float
) -> None:
    one = LinkMeasurement(rtt_s=rtt, jitter_s=jitter, loss=loss, bits_per_second=bits)
    assert (
        0
        <= score(
            LinkMeasurement(
                rtt_s=rtt + worse, jitter_s=jitter + worse, loss=loss, bits_per_second=bits
            )
        )
        <= score(one)
        <= 100
    )


def test_what_was_not_measured_does_not_count() -> None:
    assert score(LinkMeasurement(rtt_s=0.05, jitter_s=0.005)) == 75
    assert (
        "loss"
        not in after(LinkQuality(), *[LinkMeasurement(rtt_s=0.05, jitter_s=0.005)] * 3).reason
    )


def rounds(standing: PeerHealth, outcomes: str, now: float = 0.0) -> PeerHealth:
    for outcome in outcomes:
        standing = saw(standing, outcome == "+", now)
    return standing


def test_quarantine_needs_five_rounds_and_more_than_seventy_percent_failures() -> None:
    assert rounds(PeerHealth(), "----").name == TRUSTED
    assert rounds(PeerHealth(), "+++-------").name == TRUSTED, "seven of ten are not more than 70%"
    quarantined = rounds(PeerHealth(), "+----")
    assert quarantined.name == QUARANTINED
    assert quarantined.reason == "4 of its last 5 rounds failed: left out for 300 s"
    assert (
        rounds(PeerHealth(), "++-----").reason
        == "5 of its last 7 rounds failed: left out for 300 s"
    )


def test_probation_comes_with_time_and_ends_with_three_successes_or_a_failure() -> None:
    quarantined = rounds(PeerHealth(), "-----", now=10.0)
    assert look(quarantined, 10.0 + QUARANTINE_S - 1).name == QUARANTINED
    assert saw(quarantined, True, 11.0).name == QUARANTINED, "nothing shortens the quarantine"
    probation = look(quarantined, 10.0 + QUARANTINE_S)
    assert probation.name == PROBATION
    assert "3 successes are needed" in probation.reason
    at = 10.0 + QUARANTINE_S
    assert rounds(probation, "++", at).reason == "2 of 3 successes on probation"
    trusted = rounds(probation, "+++", at)
    assert (trusted.name, trusted.reason) == (TRUSTED, "3 successes on probation")
    assert rounds(trusted, "-", at).name == TRUSTED, "failures before the quarantine are forgiven"
    again = rounds(probation, "++-", at)
    assert again.name == QUARANTINED
    assert again.until_s == at + QUARANTINE_S
    assert again.reason == "it failed again on probation: left out for 300 s"
