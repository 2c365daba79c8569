"""Patience: how long a node waits before a part of the voters goes on without a quorum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.membership.patience import Patience, grace_of, is_full

G = 120.0


def patience(voters: int, since: float = 1000.0) -> Patience:
    return Patience(since=since, grace_s=G, voters=voters)


@pytest.mark.parametrize(
    ("voters", "signers", "wait_s"),
    [
        (1, 1, 0.0),
        # Half is no quorum, and one of two waits 5 graces.
        (2, 1, 5 * G),
        (2, 2, 0.0),
        (3, 1, 30 * G),
        (3, 2, 0.0),
        (4, 2, G),
        (10, 1, 30 * G),
        (10, 3, G),
        (10, 5, G),
        (10, 6, 0.0),
        (32, 2, G),
    ],
)
def test_patience_waits_by_the_number_of_signers(voters: int, signers: int, wait_s: float) -> None:
    mine = patience(voters)
    assert mine.wait_s(signers) == wait_s
    assert mine.is_patient(signers, 1000.0 + wait_s)
    if wait_s:
        assert not mine.is_patient(signers, 1000.0 + wait_s - 0.001)
        assert mine.patient_at(signers) == 1000.0 + wait_s


def test_patience_never_comes_for_a_certificate_without_voters() -> None:
    assert not patience(4).is_patient(0, 1e12)


@pytest.mark.parametrize(
    ("configured", "round_s", "grace"),
    [(None, 20.0, 120.0), (None, 90.0, 180.0), (5.0, 90.0, 5.0), (0.0, 1.0, 0.0)],
)
def test_grace_of_is_two_rounds_at_least(
    configured: float | None, round_s: float, grace: float
) -> None:
    assert grace_of(configured, round_s) == grace


@given(
    voters=st.integers(1, 64),
    signers=st.integers(0, 64),
    since=st.floats(0, 1e6),
    waited=st.floats(0, 1e6),
)
def test_patience_only_grows(voters: int, signers: int, since: float, waited: float) -> None:
    signers = min(signers, voters)
    mine = patience(voters, since)
    now = since + waited
    if mine.is_patient(signers, now):
        assert mine.is_patient(signers, now + 1.0)
        assert signers == voters or mine.is_patient(signers + 1, now)
    if is_full(signers, voters):
        assert mine.is_patient(signers, now)
