"""Reputation: a week, gated by uptime and bounded; and the admission to a run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from protocol.certificates.tip import genesis
from protocol.chain.account_binding import with_binding
from protocol.chain.reputation import (
    HOUR_S,
    KEPT_PEERS,
    MIN_ROUNDS,
    UNKNOWN,
    WINDOW_HOURS,
    Reputations,
)
from protocol.errors import PeerFault
from protocol.messages.envelope import sign
from protocol.planning.plan import make_plan, open_plan
from protocol.run.admission import check_admission, falls_short
from protocol.run.manifest import Admission, Manifest, seal
from tests.protocol.rounds import CHUNKS, MANIFEST, people, ready
from tests.protocol.settlement.paid import PAID, PAID_RUN, binding

A, B, C = people(3)


class Seen(Reputations):
    """Makes offers whose seqs all differ, as in one branch."""

    seq = 0

    def counts(self, at_s: float, samples_of: Mapping[str, int]) -> None:
        self.seq += 1
        self.saw(
            at_s, self.seq, {(peer, self.seq): samples for peer, samples in samples_of.items()}
        )


def test_the_figure_is_the_share_of_rounds_that_counted_it() -> None:
    seen = Seen()
    for i in range(20):
        seen.counts(i * 60.0, {"always": 10, **({"half": 10} if i % 2 == 0 else {})})
    assert seen.of("always", 1200.0).figure == 1000
    assert seen.of("half", 1200.0).figure == 500
    assert seen.of("never", 1200.0) == UNKNOWN


def test_a_seq_that_two_branches_list_counts_once_for_a_reputation() -> None:
    """Both halves of a partition counted the offer and then merge.

    Figure, pool and alert must not double.
    """
    one, both = Reputations(), Reputations()
    for seq in range(1, 11):
        one.saw(seq * 60.0, seq, {("p", seq): 100, ("q", seq): 100})
        for samples_of in ({("p", seq): 100}, {("p", seq): 100, ("q", seq): 100}, {}):
            both.saw(seq * 60.0, seq, samples_of)
    assert (both._peers["p"].samples, both._peers["p"].counted) == (1000, 10)
    assert both.of("p", 700.0) == one.of("p", 700.0)


def test_the_keys_of_a_reputation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.chain.reputation.KEPT_KEYS", 8)
    seen = Reputations()
    for seq in range(100):
        seen.saw(0.0, seq, {("p", seq): 1})
    assert len(seen._keys) == len(seen._numbers) == 8


def test_a_new_peer_has_no_figure() -> None:
    seen = Seen()
    for i in range(MIN_ROUNDS - 1):
        seen.counts(float(i), {"p": 1})
    assert seen.of("p", 10.0).figure is None
    seen.counts(5.0, {"p": 1})
    assert seen.of("p", 10.0).figure == 1000


def test_a_peer_that_is_mostly_away_is_gated_to_nothing() -> None:
    seen = Seen()
    for hour in range(20):
        seen.counts(hour * HOUR_S, {"here": 1, **({"guest": 1} if hour in {0, 1, 2} else {})})
    known = seen.of("guest", 19 * HOUR_S)
    assert (known.figure, known.uptime) == (0, 0.15)
    seen.counts(19 * HOUR_S, {"guest": 1})
    assert seen.of("guest", 19 * HOUR_S).figure


def test_rounds_older_than_a_week_are_forgotten() -> None:
    seen = Seen()
    for i in range(10):
        seen.counts(float(i), {"p": 1})
    assert seen.of("p", (WINDOW_HOURS - 1) * HOUR_S).figure == 1000
    assert seen.of("p", WINDOW_HOURS * HOUR_S) == UNKNOWN


def test_a_jump_above_twice_the_days_mean_is_an_alert() -> None:
    seen = Seen()
    for hour in range(10):
        seen.counts(hour * HOUR_S, {"p": 100, "q": 100})
    seen.counts(10 * HOUR_S, {"p": 200, "q": 201})
    assert seen.of("p", 10 * HOUR_S).alert == ""
    assert "201 samples in this hour; 100 were usual" in seen.of("q", 10 * HOUR_S).alert


def test_pools_follow_certified_samples() -> None:
    seen = Seen()
    for i in range(5):
        seen.counts(float(i), {"big": 400, "one": 100, "two": 100, "three": 110, "small": 20})
    assert [seen.of(name, 10.0).pool for name in ("big", "one", "three", "small")] == [
        "high-performance",
        "standard",
        "standard",
        "basic",
    ]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e12),
            st.dictionaries(st.text(max_size=2), st.integers(0, 1 << 53), max_size=4),
        ),
        max_size=60,
    )
)
def test_any_history_gives_figures_within_their_bounds(
    history: list[tuple[float, dict[str, int]]],
) -> None:
    seen = Seen()
    for at, shares in history:
        seen.counts(at, shares)
        for peer in shares:
            known = seen.of(peer, at)
            assert known.figure is None or 0 <= known.figure <= 1000
            assert 0.0 <= known.uptime <= 1.0
            assert known.pool


def test_neither_peers_nor_a_wild_clock_make_it_grow() -> None:
    seen = Seen()
    for i in range(KEPT_PEERS + 10):
        seen.counts(0.0, {f"p{i}": 1})
    assert len(seen._peers) == KEPT_PEERS
    for i in range(3 * WINDOW_HOURS):
        seen.counts((3 * WINDOW_HOURS - i) * HOUR_S, {"p": 1})
    assert len(seen._rounds) <= WINDOW_HOURS
    assert len(seen._peers["p"].hours) <= WINDOW_HOURS


def admitting(manifest: Manifest, **terms: object) -> Manifest:
    return replace(manifest, admission=Admission(**terms))  # type: ignore[arg-type]


def test_an_allowlist_is_checked_in_offers_and_plans() -> None:
    listed = admitting(MANIFEST, policy="allowlist", allowed=(A.peer, B.peer))
    run = seal(listed).run
    tip = genesis(run)
    check_admission(listed, A.peer, ready(tip, A))
    with pytest.raises(PeerFault, match="not on this run's allowlist") as caught:
        check_admission(listed, C.peer, ready(tip, C))
    assert caught.value.reason == "not_admitted"
    offers = [(sign(person, run, ready(tip, person)), ready(tip, person)) for person in (A, C)]
    plan = make_plan(tip.hash, 0, 1, offers, listed, CHUNKS, leader=A.peer)
    with pytest.raises(PeerFault, match="not on this run's allowlist"):
        open_plan(sign(A, run, plan), run, listed, CHUNKS)


def test_registered_means_that_a_wallet_signed_for_it() -> None:
    strict = admitting(PAID, policy="registered")
    plain = ready(genesis(PAID_RUN), A)
    with pytest.raises(PeerFault, match="names no wallet"):
        check_admission(strict, A.peer, plain)
    check_admission(strict, A.peer, with_binding(plain, binding(0, A.peer)))
    with pytest.raises(ValueError, match="needs a"):
        admitting(MANIFEST, policy="registered")


def test_a_known_low_reputation_is_left_out_and_a_newcomer_is_not() -> None:
    picky = admitting(MANIFEST, min_reputation=500)
    assert "reputation of 499" in falls_short(picky, A.peer, 499)
    assert (
        falls_short(picky, A.peer, 500)
        == falls_short(picky, A.peer, None)
        == falls_short(MANIFEST, A.peer, 0)
        == ""
    )


def test_a_manifest_without_admission_keeps_its_id_and_a_wrong_one_is_refused() -> None:
    assert MANIFEST.admission is UNSET
    assert seal(admitting(MANIFEST)).run != seal(MANIFEST).run
    for wrong in ({"policy": "allowlist"}, {"allowed": (A.peer,)}):
        with pytest.raises(ValueError, match="allowed must list peers"):
            Admission(**wrong)  # type: ignore[arg-type]
