"""Settlement: known ways to pay too much, twice or not at all, and why none of them works."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.digest import digest
from protocol.settlement.receipts import Receipt
from protocol.settlement.rules import SettlementRules
from protocol.settlement.sanctions import NEVER, Offence, SanctionStep, judge
from protocol.settlement.totals import EpochWork, SettlementTotals, settle

RULES = SettlementRules(lock_epochs=0)


def account(i: int) -> bytes:
    return bytes(19) + bytes([i])


A, B, C = account(1), account(2), account(3)


def receipt(
    peer: str, seq: int, samples: int = 10, who: bytes | None = A, word: str = ""
) -> Receipt:
    return Receipt(
        peer=peer,
        seq=seq,
        samples=samples,
        contribution=digest(f"{peer}{seq}{word}".encode()),
        account=who,
    )


def work(
    *receipts: Receipt,
    pool: int = 1000,
    silent: frozenset[bytes] = frozenset(),
    offences: tuple[Offence, ...] = (),
) -> EpochWork:
    return EpochWork(pool=pool, receipts=receipts, silent=silent, offences=offences)


def offence(who: bytes = A, *, samples: int = 0, word: str = "") -> Offence:
    return Offence(
        epoch=0,
        account=who,
        evidence=digest(b"evidence", word.encode()),
        reason="it was seen",
        samples=samples,
    )


def test_cumulative_figures_are_not_added_again() -> None:
    """Three epochs with as much new work each earn the same: none pays earlier work again."""
    epochs = [work(receipt("p", seq), receipt("q", seq, who=B)) for seq in (1, 2, 3)]
    assert [settle(epochs[:count], RULES).totals for count in (1, 2, 3)] == [
        {A: 500 * n, B: 500 * n} for n in (1, 2, 3)
    ]


def test_an_epoch_that_lists_old_work_again_pays_nothing_for_it() -> None:
    first = work(receipt("p", 1, 90), receipt("q", 1, 10, who=B))
    replayed = work(receipt("p", 1, 90), receipt("q", 2, 10, who=B))
    assert settle([first, replayed], RULES).totals == {A: 900, B: 100 + 1000}


def test_an_offer_in_both_branches_of_a_merge_is_paid_once() -> None:
    both = work(receipt("p", 1, 50), receipt("p", 1, 50), receipt("q", 1, 50, who=B))
    assert settle([both], RULES).totals == {A: 500, B: 500}


def test_a_branch_that_merges_later_is_paid_then_without_its_overlap() -> None:
    merged = [work(receipt("p", 1)), work(receipt("p", 1), receipt("p", 2), receipt("q", 1, who=B))]
    assert settle(merged, RULES).totals == {A: 1000 + 500, B: 500}


def test_a_sequence_that_restarts_is_not_paid_again() -> None:
    """A node that lost its home begins again with seq 1, but those keys were paid."""
    before = work(receipt("p", 1), receipt("p", 2), receipt("q", 1, who=B))
    after = work(receipt("p", 1, 10), receipt("q", 2, who=B))
    assert settle([before, after], RULES).paid_in_epochs[1] == {B: 1000}


def test_two_offers_of_one_seq_count_as_the_smaller_and_are_an_offence() -> None:
    two = work(receipt("p", 1, 900, word="x"), receipt("p", 1, 100), receipt("q", 1, 100, who=B))
    settled = settle([two], RULES)
    assert [(one.step, one.account, one.samples) for one in settled.sanctions] == [
        (SanctionStep.SUBTRACT, A, 900)
    ]
    assert "two different offers as seq 1" in settled.sanctions[0].reason
    assert settled.totals == {B: 1000}
    assert settle([replace(two, receipts=tuple(reversed(two.receipts)))], RULES) == settled


def test_work_without_a_binding_earns_nothing_and_blocks_nobody() -> None:
    settled = settle([work(receipt("p", 1, 10**6, who=None), receipt("q", 1, who=B))], RULES)
    assert settled.totals == {B: 1000}
    assert [one.reason for one in settled.withheld] == ["the offer named no wallet"]


def test_an_account_that_fails_its_gate_blocks_nobody_and_its_work_waits() -> None:
    silent = work(receipt("p", 1), receipt("q", 1, who=B), silent=frozenset({A}))
    back = work(receipt("q", 2, who=B))
    first = settle([silent], RULES)
    assert first.totals == {B: 1000}
    assert [one.account for one in first.withheld] == [A]
    assert settle([silent, back], RULES).totals == {A: 500, B: 1500}


def test_work_that_waited_too_long_lapses() -> None:
    rules = SettlementRules(lock_epochs=0, held_epochs=1)
    epochs = [work(receipt("p", 1), silent=frozenset({A})), work(silent=frozenset({A})), work()]
    assert "lapsed" in settle(epochs[:2], rules).withheld[0].reason
    assert settle(epochs, rules).totals == {}


def test_an_epoch_without_work_pays_nobody() -> None:
    assert settle([work(), work(receipt("p", 1))], RULES).totals == {A: 1000}


def test_only_samples_are_paid() -> None:
    """A receipt has no time, loss or norm, so slow or wild training cannot earn more."""
    fields = {"peer", "seq", "samples", "contribution", "account", "paid", "unpaid"}
    assert set(Receipt.__struct_fields__) == fields


def test_sanctions_go_up_in_steps_with_reason_and_evidence() -> None:
    found = [replace(offence(word=str(i), samples=5), epoch=i) for i in range(5)]
    sanctions = judge(found, RULES)
    assert [one.step for one in sanctions] == [
        SanctionStep.SUBTRACT,
        SanctionStep.QUARANTINE,
        SanctionStep.FORFEIT,
        SanctionStep.BAN,
    ]
    assert [one.until for one in sanctions] == [0, 3, 4, NEVER]
    assert all(one.reason and len(one.evidence) == 32 for one in sanctions)


def test_sanctions_begin_at_step_one_after_a_clean_probation() -> None:
    rules = SettlementRules(quarantine_epochs=2, probation_epochs=3)
    found = [
        offence(word="a"),
        replace(offence(word="b"), epoch=1),
        replace(offence(word="c"), epoch=6),
    ]
    assert [one.step for one in judge(found, rules)] == [
        SanctionStep.SUBTRACT,
        SanctionStep.QUARANTINE,
        SanctionStep.SUBTRACT,
    ]
    earlier = [*found[:2], replace(found[2], epoch=5)]
    assert judge(earlier, rules)[-1].step == SanctionStep.FORFEIT


def test_a_repeated_offence_counts_once() -> None:
    assert len(judge([offence(), offence(), replace(offence(), epoch=3)], RULES)) == 1


def test_subtraction_reduces_later_earnings_and_never_paid_ones() -> None:
    epochs = [
        work(receipt("p", 1, 50), receipt("q", 1, 50, who=B)),
        work(receipt("p", 2, 50), receipt("q", 2, 50, who=B), offences=(offence(samples=75),)),
        work(receipt("p", 3, 50), receipt("q", 3, 75, who=B)),
    ]
    assert settle(epochs, RULES).paid_in_epochs == ({A: 500, B: 500}, {B: 1000}, {A: 250, B: 750})


def test_quarantined_work_is_never_paid_and_a_ban_is_for_ever() -> None:
    offences = [(offence(word=str(i)),) for i in range(4)]
    rules = SettlementRules(lock_epochs=0, quarantine_epochs=1)
    epochs = [
        work(receipt("p", i + 1), receipt("q", i + 1, who=B), offences=found)
        for i, found in enumerate([*offences, (), ()])
    ]
    assert settle(epochs, rules).paid_in_epochs == ({A: 500, B: 500}, *[{B: 1000}] * 5)
    free = [*epochs[:2], work(receipt("p", 9), receipt("q", 9, who=B))]
    assert settle(free, rules).paid_in_epochs[2] == {A: 500, B: 500}


def test_forfeit_removes_the_locked_earnings_and_nothing_else() -> None:
    rules = SettlementRules(lock_epochs=1, quarantine_epochs=1)
    epochs = [work(receipt("p", i + 1), receipt("q", i + 1, who=B)) for i in range(3)]
    tried = (offence(word="a"), offence(word="b"), offence(word="c"))
    before = settle(epochs, rules)
    assert (before.totals, before.locked) == ({A: 1000, B: 1000}, {A: 500, B: 500})
    after = settle([*epochs, work(receipt("p", 4), receipt("q", 4, who=B), offences=tried)], rules)
    assert after.sanctions[-1].step == SanctionStep.FORFEIT
    assert after.totals == {A: 1000, B: 1500}
    assert after.locked == {B: 1000}


RECEIPTS = st.builds(
    receipt,
    peer=st.sampled_from("pqrs"),
    seq=st.integers(1, 6),
    samples=st.integers(1, 1000),
    who=st.sampled_from([A, B, C, None]),
    word=st.sampled_from(["", "x"]),
)
OFFENCES = st.builds(
    offence, st.sampled_from([A, B]), samples=st.integers(0, 500), word=st.sampled_from("abcdef")
)
EPOCHS = st.lists(
    st.builds(
        EpochWork,
        pool=st.integers(0, 10**24),
        receipts=st.lists(RECEIPTS, max_size=8).map(tuple),
        silent=st.frozensets(st.sampled_from([A, B, C])),
        offences=st.lists(OFFENCES, max_size=2).map(tuple),
    ),
    max_size=6,
)
ANY_RULES = st.builds(SettlementRules, lock_epochs=st.integers(0, 3), held_epochs=st.integers(0, 3))


def _histories(epochs: list[EpochWork], rules: SettlementRules) -> list[SettlementTotals]:
    return [settle(epochs[: count + 1], rules) for count in range(len(epochs))]


@given(epochs=EPOCHS, rules=ANY_RULES)
def test_payments_never_exceed_the_pools(epochs: list[EpochWork], rules: SettlementRules) -> None:
    for count, settled in enumerate(_histories(epochs, rules)):
        assert settled.total + sum(settled.locked.values()) <= sum(
            work.pool for work in epochs[: count + 1]
        )


@given(epochs=EPOCHS, rules=ANY_RULES)
def test_totals_only_grow(epochs: list[EpochWork], rules: SettlementRules) -> None:
    before: dict[bytes, int] = {}
    for settled in _histories(epochs, rules):
        assert all(settled.totals.get(who, 0) >= amount for who, amount in before.items())
        before = settled.totals


@given(epochs=EPOCHS, rules=ANY_RULES, seed=st.integers(0, 1000))
def test_the_order_of_certificates_does_not_matter(
    epochs: list[EpochWork], rules: SettlementRules, seed: int
) -> None:
    dice = random.Random(seed)
    shuffled = [
        replace(
            one,
            receipts=tuple(dice.sample(one.receipts, len(one.receipts))),
            offences=tuple(dice.sample(one.offences, len(one.offences))),
        )
        for one in epochs
    ]
    one, other = settle(epochs, rules), settle(shuffled, rules)
    assert (one.totals, one.locked, one.sanctions) == (other.totals, other.locked, other.sanctions)


@given(epochs=EPOCHS, rules=ANY_RULES)
def test_no_account_is_paid_without_its_own_work(
    epochs: list[EpochWork], rules: SettlementRules
) -> None:
    worked = {one.account for work in epochs for one in work.receipts}
    assert set(settle(epochs, rules).totals) <= worked


def test_unpaid_and_bounded_work_is_withheld_with_its_reason() -> None:
    receipts = (
        replace(receipt("a", 1, 100), paid=40),
        replace(receipt("b", 1, 100, who=B), paid=0, unpaid="its peer is not a member"),
        receipt("c", 1, 40, who=C),
    )
    settled = settle([work(*receipts)], RULES)
    assert set(settled.totals) == {A, C}
    assert sorted(settled.totals.values()) == [500, 500]
    assert {(one.samples, one.reason) for one in settled.withheld} == {
        (60, "more than 2 times its own or 16 times the voters' usual work"),
        (100, "its peer is not a member"),
    }
