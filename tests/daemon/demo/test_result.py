"""The result of a demo, from statuses."""

from __future__ import annotations

import msgspec

from daemon.demo.agreement import Agreement
from daemon.demo.result import ClaimedReward, RewardSummary, RoundTally, result_text, round_line
from protocol.journal import Contributor, RoundCertified, TrafficReport, ViewPassed
from protocol.status import Status, StatusState, fold, status_at

AGREED = Agreement(agreed=True, number=3, reason="all 2 hold the same 4.0 MB anchor at round 3")


def certified(number: int, loss: float | None = None, samples: int = 10) -> RoundCertified:
    return RoundCertified(
        at=100.0 + 5 * number,
        number=number,
        view=0,
        certificate=f"{number:064x}",
        parent=f"{number - 1:064x}",
        members=("a", "b"),
        shares=(Contributor(peer="a", samples=samples, loss=loss),),
        samples=samples,
        loss=loss,
        state_digest="",
        outcome="counted",
        phase_seconds={"train": 4.0, "vote": 0.5},
        reason="",
    )


def status(*events: RoundCertified | ViewPassed, sent: int = 0) -> Status:
    state = StatusState()
    for event in events:
        state = fold(state, event)
    report = TrafficReport(
        control_sent=1, control_received=0, bulk_sent=sent, bulk_received=0, connections=0
    )
    return status_at(fold(state, report), 200.0)


def test_tally_of_two_daemons_that_saw_different_rounds() -> None:
    tally = RoundTally(95.0)
    missed = ViewPassed(at=101.0, number=1, view=0, reason="nobody came")
    first = tally.update(
        {"a": status(missed, certified(1, 4.0), certified(2, 3.0), sent=5), "b": None}
    )
    assert [seen.number for seen in first] == [1, 2]
    fresh = tally.update(
        {
            "a": status(certified(1, 4.0), certified(2, 3.0), sent=5),
            "b": status(certified(2, 3.0), certified(3, 2.0, 30), sent=7),
        }
    )
    assert [seen.number for seen in fresh] == [3]
    assert (tally.reached("a"), tally.reached("b"), tally.reached("c")) == (2, 3, 0)
    assert (tally.heard("b"), tally.heard("c")) == (True, False)
    verdict = tally.result(2, AGREED)
    assert (verdict.rounds_certified, verdict.loss_first, verdict.loss_last) == (3, 4.0, 2.0)
    # 10 and 30 samples in the 10 s after the first certificate.
    assert verdict.samples_per_second == 4.0
    assert verdict.bytes_sent == 14
    assert verdict.good
    assert result_text(verdict, AGREED).startswith(
        "3 rounds were certified by 2 peers, and they agree byte for byte"
    )


def test_tally_of_one_round_measures_from_the_start() -> None:
    tally = RoundTally(95.0)
    tally.update({"a": status(certified(1, 4.0, samples=50))})
    assert tally.result(2, AGREED).samples_per_second == 5.0


def test_result_without_certified_rounds_is_bad_and_has_no_figures() -> None:
    verdict = RoundTally(0.0).result(4, Agreement(agreed=False, number=None, reason="nothing"))
    assert msgspec.to_builtins(verdict) == {
        "peers": 4,
        "rounds_certified": 0,
        "agreement": False,
        "loss_first": None,
        "loss_last": None,
        "samples_per_second": 0.0,
        "bytes_sent": 0,
    }
    assert not verdict.good
    assert result_text(verdict, AGREED).startswith("No round was certified by 4 peers.")


def test_round_line() -> None:
    assert (
        round_line(status(certified(7, 2.5, 1234)).rounds[0], 4)
        == "round 7: 1 of 4 contributed 1,234 samples, claimed loss 2.5000, 4.5 s"
    )
    assert round_line(status(certified(7)).rounds[0], 4).endswith("loss unknown, 4.5 s")


def _paid(name: str, amount: int, *, verified: bool = True) -> ClaimedReward:
    return ClaimedReward(
        name=name, account="0x1", payout="0x2", samples=10, amount=str(amount), verified=verified
    )


def test_reward_summary_is_good_if_the_sum_is_right_and_all_verified() -> None:
    pool = 1000 * 10**18
    whole = RewardSummary(
        pool=str(pool), paid=(_paid("node-1", pool // 4), _paid("node-2", pool - pool // 4))
    )
    tally = RoundTally(100.0)
    tally.update({"one": status(certified(1, 2.0)), "two": status(certified(1, 2.0))})
    paid = tally.result(2, AGREED, whole)
    assert paid.good
    assert "exactly the pool" in result_text(paid, AGREED)
    for wrong in (
        msgspec.structs.replace(whole, paid=whole.paid[:1]),
        msgspec.structs.replace(whole, paid=(_paid("node-1", pool, verified=False),)),
        msgspec.structs.replace(whole, paid=()),
    ):
        assert not tally.result(2, AGREED, wrong).good
    assert b"payout" not in msgspec.json.encode(tally.result(2, AGREED))
