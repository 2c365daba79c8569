"""The fold: how each event changes the status, in any order and within its bounds."""

from __future__ import annotations

import typing
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol import journal
from protocol.limits.limits import LimitPause
from protocol.status import (
    KEPT_EVENTS,
    KEPT_PEERS,
    KEPT_POINTS,
    KEPT_ROUNDS,
    Status,
    StatusState,
    fold,
    status_at,
)
from protocol.status.peer_records import KEPT_LOST
from protocol.status.shown_events import REFUSAL_SILENCE_S
from tests.story import (
    AT,
    HOSTILE,
    ME,
    PEERS,
    certified,
    day,
    folded,
    report,
    started,
    trainer_ready,
)

EVENTS: tuple[type[journal.JournalEvent], ...] = typing.get_args(journal.AnyEvent)
_PEER = st.sampled_from([*PEERS, "", "nobody"])
_TEXT = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["direct", "node", "observer", "counted", "late", "missed", "unsigned", "train"]
)


def _values(kind: object) -> st.SearchStrategy[typing.Any]:
    """Draw any value of a field's type, absurd values included."""
    simple: dict[object, st.SearchStrategy[typing.Any]] = {
        str: _TEXT | _PEER,
        int: st.integers(0, 40) | st.integers(),
        float: st.floats(),
        bool: st.booleans(),
        tuple[str, ...]: st.lists(_PEER | _TEXT, max_size=80).map(tuple),
        tuple[int, ...]: st.lists(st.integers(), max_size=80).map(tuple),
        tuple[journal.Contributor, ...]: st.lists(
            st.builds(
                journal.Contributor, peer=_PEER, samples=st.integers(), loss=st.none() | st.floats()
            ),
            max_size=4,
        ).map(tuple),
        tuple[LimitPause, ...]: st.lists(
            st.builds(LimitPause, limit=_TEXT, until=_TEXT, reason=_TEXT), max_size=20
        ).map(tuple),
        tuple[float, ...]: st.lists(st.floats(), max_size=5).map(tuple),
        tuple[journal.Newcomer, ...]: st.lists(
            st.builds(
                journal.Newcomer,
                peer=_PEER,
                favours=st.integers(),
                against=st.integers(),
                voters=st.integers(),
            ),
            max_size=4,
        ).map(tuple),
        tuple[journal.MemberPlace, ...]: st.lists(
            st.builds(
                journal.MemberPlace,
                group=st.integers(),
                is_measured=st.booleans(),
                x_us=st.integers(),
                y_us=st.integers(),
                z_us=st.integers(),
                height_us=st.integers(),
            ),
            max_size=4,
        ).map(tuple),
        tuple[journal.ServedStage, ...]: st.lists(
            st.builds(
                journal.ServedStage,
                peer=_PEER,
                name=_TEXT,
                first=st.integers(),
                stop=st.integers(),
                layer_tokens_per_s=st.floats(),
                cache_tokens_free=st.integers(),
            ),
            max_size=4,
        ).map(tuple),
        dict[str, float]: st.dictionaries(_TEXT, st.floats(), max_size=30),
    }
    if kind in simple:
        return simple[kind]
    return st.none() | simple[typing.get_args(kind)[0]]  # float | None


def _events(kind: type[journal.JournalEvent]) -> st.SearchStrategy[journal.JournalEvent]:
    fields = {
        name: _values(hint)
        for name, hint in typing.get_type_hints(kind).items()
        if name != "durable"
    }
    return st.builds(kind, **fields)


any_event = st.one_of([_events(kind) for kind in EVENTS])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_event, max_size=30), st.floats(0, 4e9))
def test_any_events_in_any_order_make_a_record_that_travels(
    events: list[journal.JournalEvent], now: float
) -> None:
    state = folded(events)
    status = status_at(state, now)
    again = msgspec.json.decode(msgspec.json.encode(status), type=Status)
    assert again == status
    assert len(status.rounds) <= KEPT_ROUNDS
    assert len(status.events) <= KEPT_EVENTS
    assert set(status.refusals) == set(journal.REFUSALS)
    assert status.verdict
    assert status.verdict.isprintable()
    assert status.level in ("info", "good", "warning", "bad")
    for sentence in status.events:
        assert sentence.text.isprintable()


@settings(max_examples=60, deadline=None)
@given(st.permutations(day()))
def test_shuffled_history_counts_the_same(events: list[journal.JournalEvent]) -> None:
    before, after = status_at(folded(day()), AT), status_at(folded(events), AT)
    assert (before.you.rounds_counted, before.you.rounds_late, before.you.rounds_lost) == (4, 1, 1)
    assert (after.you.rounds_counted, after.you.rounds_late, after.you.rounds_lost) == (4, 1, 1)
    assert after.run.samples_certified == before.run.samples_certified
    assert after.refusals == before.refusals


def test_a_nodes_day() -> None:
    status = status_at(folded(day()), AT)
    assert status.as_of == AT
    assert status.run.number == 6
    assert status.run.rounds_certified == 6
    assert status.run.samples_certified == 400 * 4 + 300 * 2
    assert status.run.loss_first == pytest.approx(5.95)
    assert status.run.loss == pytest.approx(5.7)
    assert status.run.round_seconds == pytest.approx(14.0)
    state = folded([*day(), *(certified(number, at=AT + number / 1000) for number in range(8, 30))])
    assert status_at(state, AT + 1).run.round_seconds == pytest.approx(14.0), (
        "certificates that arrive at once do not count as the length of a round"
    )
    assert status.run.nodes == 5
    assert status.you.samples_total == 600
    # The late and the lost round have 100 samples each.
    assert status.you.samples_pending == 200
    assert status.you.rounds_missed == 1
    assert [known.outcome for known in status.rounds] == [
        "counted",
        "counted",
        "lost",
        "counted",
        "missed",
        "late",
        "counted",
    ]
    assert status.rounds[4].certificate == ""
    assert [point.samples for point in status.curve] == [400, 700, 1100, 1400, 1800, 2200]
    assert [peer.connected for peer in status.peers] == [True, True, True, False]
    assert status.network.bulk_received == 4_000_000
    assert status.refusals["unsigned"] == 3


def test_a_repeated_certificate_counts_once() -> None:
    state = folded([started(), certified(1), certified(1)])
    assert status_at(state, AT).run.rounds_certified == 1
    assert status_at(state, AT).you.rounds_counted == 1


def test_strangers_are_bounded_and_the_connected_stay() -> None:
    state = folded([started(), report(1)])
    for i in range(KEPT_PEERS + 50):
        fold(state, msgspec.structs.replace(report(2, path=""), peer=f"sybil-{i}", at=AT + i))
    status = status_at(state, AT)
    assert len(status.peers) == KEPT_PEERS
    assert status.peers[0].peer == PEERS[1]


def test_an_unprintable_name_is_cleaned() -> None:
    status = status_at(folded([started(), report(3)]), AT)
    name = status.peers[0].name
    assert "\x1b" in HOSTILE
    assert name.isprintable()
    # The page escapes markup; the fold removes control characters for all readers.
    assert name.startswith("<script>")


def test_absurd_numbers_of_a_peer_are_cleaned() -> None:
    wild = msgspec.structs.replace(
        report(1),
        loss=float("nan"),
        samples_per_second=float("inf"),
        samples=2**63,
        number=2**63,
        rtt_s=float("-inf"),
    )
    peer = status_at(folded([wild]), AT).peers[0]
    assert (peer.loss, peer.samples_per_second, peer.rtt_s) == (None, 0.0, None)
    assert peer.samples == peer.number == 2**53


def test_refusals_are_counted_but_not_narrated() -> None:
    state = folded([started(), certified(1)])
    for i in range(500):
        fold(
            state,
            journal.InputRefused(
                at=AT + i * 0.01, reason="malformed", peer="", detail="random bytes"
            ),
        )
    status = status_at(state, AT + 5)
    assert status.refusals["malformed"] == 500
    assert sum("malformed" in event.text for event in status.events) == 1
    fold(
        state,
        journal.InputRefused(
            at=AT + REFUSAL_SILENCE_S + 1, reason="malformed", peer="", detail="random bytes"
        ),
    )
    assert sum("malformed" in event.text for event in status_at(state, AT).events) == 2


def test_strangers_never_push_out_what_this_node_did() -> None:
    state = folded([started(), certified(1)])
    for i in range(200):
        fold(state, journal.PeerUp(at=AT, peer=f"flapping-{i}", path="direct", address=""))
        fold(state, journal.PeerDown(at=AT, peer=f"flapping-{i}", reason="reset"))
    status = status_at(state, AT)
    assert any("Round 1 is certified" in event.text for event in status.events)
    # The fold forgets peers that connect without a beacon.
    assert status.peers == ()


def test_a_lost_member_is_remembered_until_it_is_forgotten() -> None:
    state = folded([started(), report(1)])
    fold(state, journal.PeerDown(at=AT, peer=PEERS[1], reason="reset"))
    assert [(peer.connected, peer.path) for peer in status_at(state, AT).peers] == [(False, "")]
    fold(state, journal.PeerForgotten(at=AT, peer=PEERS[1], silent_s=60.0))
    assert status_at(state, AT).peers == ()


def test_own_beacon_is_no_peer() -> None:
    assert (
        status_at(folded([started(), msgspec.structs.replace(report(1), peer=ME)]), AT).peers == ()
    )


def test_the_curve_covers_a_long_run_evenly() -> None:
    state = StatusState()
    fold(state, started())
    rounds = 5 * KEPT_POINTS
    for number in range(1, rounds + 1):
        fold(state, certified(number, at=AT + number, loss=1.0))
    curve = status_at(state, AT).curve
    assert KEPT_POINTS // 2 <= len(curve) <= KEPT_POINTS
    assert curve[0].number == 1
    assert curve[-1].number == rounds
    gaps = {after.number - before.number for before, after in pairwise(curve)}
    assert max(gaps) <= 2 * rounds / KEPT_POINTS * 2


def test_dropped_work_no_longer_waits() -> None:
    state = folded(
        [
            started(),
            trainer_ready(),
            journal.Trained(number=1, steps=1, samples=50, loss=1.0, seconds=1.0),
        ]
    )
    fold(state, journal.WorkDropped(samples=30, reason="older than 20 rounds"))
    assert (status_at(state, AT).you.samples_pending, status_at(state, AT).you.samples_dropped) == (
        20,
        30,
    )


def test_how_far_off_predictions_are_is_the_median_over_rounds_that_had_one() -> None:
    def round_of(number: int, predicted_s: float | None, took_s: float) -> journal.RoundCertified:
        phases = {"train": 8.0, "scatter": took_s / 4, "reduce": 3 * took_s / 4}
        return replace(
            certified(number), phase_seconds=phases, plan=f"plan {number}", predicted_s=predicted_s
        )

    rounds = [
        round_of(1, None, 2.0),
        round_of(2, 3.0, 2.0),
        round_of(3, 1.8, 2.0),
        round_of(4, 2.2, 2.0),
        round_of(5, 2.0, 0.0),
    ]
    state = folded([started(), *rounds[:1]])
    assert state.run.prediction_error is None
    state = folded([started(), *rounds])
    assert state.run.prediction_error == pytest.approx(0.1)
    assert state.run.plan == "plan 5"


def test_the_share_of_time_spent_computing_is_of_the_last_round() -> None:
    trained = journal.Trained(number=1, steps=1, samples=50, loss=1.0, seconds=6.0)
    status = folded(
        [started(), trained, replace(certified(1), phase_seconds={"train": 6.0, "scatter": 2.0})]
    )
    assert status.you.computing == pytest.approx(0.75)


def test_fold_keeps_a_lost_member_with_its_reason_for_an_hour() -> None:
    state = folded([started(), report(1), report(2)])
    fold(state, journal.PeerDown(at=AT, peer=PEERS[1], reason="reset"))
    (shown,) = [one for one in status_at(state, AT).peers if one.peer == PEERS[1]]
    assert (shown.lost_at, shown.lost_reason) == (AT, "reset")
    fold(state, journal.PeerForgotten(at=AT + 20, peer=PEERS[1], silent_s=20.0))
    fold(state, journal.PeerForgotten(at=AT + 30, peer=PEERS[2], silent_s=20.0))
    lost = status_at(state, AT + 60).lost
    assert [(one.peer, one.lost_reason) for one in lost] == [
        (PEERS[2], "it was silent for 20 s"),
        (PEERS[1], "reset"),
    ]
    assert [one.peer for one in status_at(state, AT + 3610).lost] == [PEERS[2]]
    # A peer that comes back is lost no more.
    fold(state, report(1, at=AT + 70))
    assert [one.peer for one in status_at(state, AT + 80).lost] == [PEERS[2]]


def test_fold_bounds_the_lost_peers() -> None:
    state = folded([started()])
    for i in range(3 * KEPT_LOST):
        fold(state, msgspec.structs.replace(report(1), peer=f"stranger-{i}"))
        fold(state, journal.PeerForgotten(at=AT, peer=f"stranger-{i}", silent_s=20.0))
    assert len(status_at(state, AT).lost) == KEPT_LOST
