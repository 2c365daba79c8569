"""The page as markup: complete without JavaScript, all text escaped, no inline script or style."""

from __future__ import annotations

from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.cli.terminal.peers_text import peers_text
from daemon.observer.chart import loss_chart, nice_axis
from daemon.observer.metrics import metrics_text
from daemon.observer.page import join_line, page_html
from daemon.observer.page_lists import SHOWN_PEERS, when
from daemon.observer.time_charts import time_charts
from protocol import journal
from protocol.journal import REFUSALS
from protocol.status import HeldOutPoint, LossPoint, StatusState, fold, status_at
from protocol.status.reference import ReferenceCurve, ReferencePoint
from protocol.status.round_points import RoundPoint
from tests.story import AT, HOSTILE, PEERS, certified, day, folded, report, scored, started

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Markup(HTMLParser):
    """Collects tags, attributes and text, and checks that every opened tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("role", ["node", "observer"])
def test_page_is_complete_without_javascript(role: str) -> None:
    status = status_at(folded(day(role)), AT)
    page = Markup(page_html(status))
    for words in (
        status.verdict,
        "Round 6",
        "basement-4090",
        "relayed",
        "12 ms",
        "3 unsigned",
        "kitchen",
        "stdlib-gpt",
    ):
        assert words in page.words
    for event in status.events:
        assert event.text in page.words
    assert "You" in page.words if role == "node" else "This observer" in page.words


def test_page_of_an_empty_status_says_starting() -> None:
    assert "Starting" in Markup(page_html(status_at(StatusState(), AT))).words


def test_page_escapes_all_text_of_other_peers() -> None:
    events = day()
    for i in (1, 2, 3, 4):
        hostile = {
            "name": HOSTILE,
            "device": HOSTILE,
            "phase": HOSTILE,
            "address": HOSTILE,
            "role": HOSTILE,
            "path": HOSTILE,
            "tip": HOSTILE,
        }
        events.append(msgspec.structs.replace(report(i), **hostile))
    events += [
        journal.InputRefused(at=AT, reason="malformed", peer=HOSTILE, detail=HOSTILE),
        journal.PeerDown(at=AT, peer=PEERS[1], reason=HOSTILE),
        journal.Planned(
            at=AT, number=9, view=0, leader=HOSTILE, members=(HOSTILE,), reason=HOSTILE
        ),
        msgspec.structs.replace(
            certified(9),
            outcome=HOSTILE,
            certificate=HOSTILE,
            reason=HOSTILE,
            phase_seconds={HOSTILE: 1.0},
        ),
        msgspec.structs.replace(
            started(), name=HOSTILE, run_name=HOSTILE, task=HOSTILE, version=HOSTILE, run=HOSTILE
        ),
        journal.Stuck(at=AT, reason=HOSTILE),
    ]
    page = Markup(page_html(status_at(folded(events), AT)))
    assert page.tags.count("script") == 1
    assert [value for tag, name, value in page.attributes if (tag, name) == ("script", "src")] == [
        "/static/page.js"
    ]
    assert "alert(" in page.words


def test_page_has_nothing_inline_and_nothing_from_other_sites() -> None:
    page = Markup(page_html(status_at(folded(day()), AT)))
    assert "style" not in page.tags
    for tag, name, value in page.attributes:
        assert name != "style"
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("/"), (tag, value)


def test_peers_table_is_cut_and_counts_the_rest() -> None:
    state = folded([started()])
    for i in range(SHOWN_PEERS + 7):
        fold(state, msgspec.structs.replace(report(1), peer=f"peer-{i}"))
    page = Markup(page_html(status_at(state, AT)))
    assert "and 7 more" in page.words
    assert page.tags.count("tr") == SHOWN_PEERS + 1


def test_rounds_strip_has_a_glyph_and_a_word_for_each_outcome() -> None:
    outcomes = ("counted", "late", "lost", "idle", "observed")
    status = status_at(
        folded(
            [started(), *[certified(n, outcome) for n, outcome in enumerate(outcomes, 1)], day()[9]]
        ),
        AT,
    )
    page = Markup(page_html(status))
    for word in (
        "✓ counted",
        "◔ late",
        "✕ lost",
        "– nothing to offer",
        "● certified",
    ):
        assert word in page.words


@pytest.mark.parametrize("at", [-1e300, 0.0, AT, 1e300])
def test_when_of_any_number_is_a_date(at: float) -> None:
    assert when(at).startswith("<time ")


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_nice_axis_contains_its_values_with_few_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    axis = nice_axis(low, high)
    slack = max(abs(low), abs(high), 1e-3) * 1e-6
    assert axis.low <= low + slack
    assert axis.high >= high - slack
    assert axis.low < axis.high
    assert 1 <= axis.steps <= 6
    assert len(axis.labels()) == axis.steps + 1


CURVE = st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e12, 1e12)), max_size=50)


@given(training=CURVE, held_out=CURVE, alone=CURVE, of_time=st.booleans())
def test_loss_chart_draws_any_curve(
    training: list[tuple[int, float]],
    held_out: list[tuple[int, float]],
    alone: list[tuple[int, float]],
    of_time: bool,
) -> None:
    points = [
        LossPoint(number=i, at=AT + total, samples=total, loss=loss)
        for i, (total, loss) in enumerate(sorted(training))
    ]
    scores = [
        HeldOutPoint(
            number=i, at=AT + total, samples=total, loss=loss, training=None, scored=9, scorers=2
        )
        for i, (total, loss) in enumerate(sorted(held_out))
    ]
    reference = ReferenceCurve(
        label="one machine alone",
        began_at=AT,
        points=tuple(
            ReferencePoint(seconds=float(at), samples=at, loss=loss) for at, loss in sorted(alone)
        ),
    )
    html = loss_chart(points, scores, reference if of_time else None)
    Markup(html)
    assert "nan" not in html
    assert "inf" not in html


def test_page_shows_held_out_loss_beside_the_members_claim_and_a_reference() -> None:
    state = folded([*day(), *(scored(i, n, 6.2 - 0.1 * n) for i in (0, 1) for n in (3, 5, 6))])
    reference = ReferenceCurve(
        label="one <machine> alone",
        began_at=AT - 100,
        points=(
            ReferencePoint(seconds=0.0, samples=0, loss=6.5),
            ReferencePoint(seconds=70.0, samples=900, loss=6.3),
        ),
    )
    status = status_at(state, AT)
    page = Markup(page_html(status))
    for words in ("Claimed loss", "scored by 2", "held-out samples", "against samples"):
        assert words in page.words
    assert "alone" not in page.words
    page = Markup(page_html(msgspec.structs.replace(status, reference=reference)))
    assert "one <machine> alone" in page.words
    assert "against time" in page.words


def test_metrics_begin_at_zero_and_have_no_peer_as_label() -> None:
    empty, full = (
        metrics_text(status_at(StatusState(), AT)).decode(),
        metrics_text(status_at(folded(day()), AT)).decode(),
    )
    for text in (empty, full):
        for reason in REFUSALS:
            assert f'hypergpu_refusals_total{{reason="{reason}"}}' in text
        for result in ("counted", "late", "lost", "idle", "missed", "observed"):
            assert f'hypergpu_rounds_total{{result="{result}"}}' in text
        for path in ("direct", "relayed", "none"):
            assert f'hypergpu_peers{{path="{path}"}}' in text
    assert "hypergpu_loss NaN" in empty
    assert "hypergpu_held_out_loss NaN" in empty
    one = metrics_text(status_at(folded([*day(), scored(1, 6, 2.5)]), AT)).decode()
    for sample in ("loss 2.5", "round 6.0", "scored_samples 256.0", "scorers 1.0"):
        assert f"hypergpu_held_out_{sample}" in one
    for line in (
        "hypergpu_round 6.0",
        'hypergpu_network_bytes_total{direction="sent",plane="bulk"} 3e+06',
        "hypergpu_samples_total 600.0",
    ):
        assert line in full
    for line in (
        'hypergpu_peers{path="relayed"} 1.0',
        'hypergpu_round_seconds{phase="train"} 12.0',
        'hypergpu_refusals_total{reason="unsigned"} 3.0',
    ):
        assert line in full
    for peer in PEERS:
        assert peer not in full
    for name in ("kitchen", "basement", "script"):
        assert name not in full

    def series(text: str) -> list[str]:
        return [
            line.rpartition(" ")[0]
            for line in text.splitlines()
            if not line.startswith("#") and "node_info" not in line
        ]

    assert series(empty) == series(full)


def test_metrics_have_prediction_error_and_standings() -> None:
    rounds = [replace(certified(1), phase_seconds={"scatter": 1.0, "reduce": 1.0}, predicted_s=2.5)]
    empty, full = (
        metrics_text(status_at(StatusState(), AT)).decode(),
        metrics_text(status_at(folded([started(), *rounds]), AT)).decode(),
    )
    assert "hypergpu_prediction_error_ratio NaN" in empty
    assert "hypergpu_prediction_error_ratio 0.25" in full
    wrote = journal.DiskReport(at=AT, written_bytes=7_000, hourly_bytes=3_000)
    disk = metrics_text(status_at(folded([started(), wrote]), AT)).decode()
    assert "hypergpu_disk_written_bytes_total 7000.0" in disk
    assert "hypergpu_disk_hourly_bytes 3000.0" in disk
    assert 'hypergpu_peer_standings{standing="quarantined"} 0.0' in empty
    kept_out = replace(
        report(1),
        standing="quarantined",
        standing_reason="4 of its last 5 rounds failed: left out for 300 s",
    )
    status = status_at(folded([started(), kept_out]), AT)
    assert 'hypergpu_peer_standings{standing="quarantined"} 1.0' in metrics_text(status).decode()
    assert (
        "quarantined: 4 of its last 5 rounds failed: left out for 300 s"
        in Markup(page_html(status)).words
    )
    assert "quarantined: 4 of its last 5 rounds failed: left out for 300 s" in peers_text(
        status, color=False
    )


POINTS = st.lists(
    st.tuples(
        st.integers(0, 64),
        st.just(0.0) | st.floats(0.05, 1e4),
        st.integers(0, 9),
        st.booleans(),
    ),
    min_size=1,
    max_size=80,
)


@given(made=POINTS)
def test_time_charts_draw_any_points(made: list[tuple[int, float, int, bool]]) -> None:
    points = [
        RoundPoint(
            number=i,
            at=AT + 10 * i,
            samples=100 * members,
            members=members,
            counted=members // 2,
            took_s=took,
            phases=(took / 2, 0.0, took / 4, took / 8, 0.0) if has_phases else (),
            failed=failed,
        )
        for i, (members, took, failed, has_phases) in enumerate(made)
    ]
    html = time_charts(points)
    Markup(html)
    assert html.count("<svg") == 3
    assert "nan" not in html
    assert "inf" not in html


def test_page_draws_phases_failed_tries_joins_and_leaves_and_names_them() -> None:
    events = [*day(), certified(7, at=AT, members=3), certified(8, at=AT + 14, members=5)]
    page = page_html(status_at(folded(events), AT + 20))
    assert page.count('class="failed-try"') == 1
    # One mark in each of the four charts.
    assert page.count('class="leave"') == page.count('class="join"') == 4
    for words in ("1 try failed", "1 join and 1 leave", "averaging", "between certificates"):
        assert words in Markup(page).words
    # Members have their part in the last rounds.
    assert "8 rounds counted, 0 late or lost" in page


def test_join_line_names_a_connected_node_only_in_an_open_run() -> None:
    status = status_at(folded(day("observer")), AT)
    assert join_line(status).startswith("hypergpud start --join /ip4/127.0.0.1/tcp/4002/p2p/")
    closed = msgspec.structs.replace(status.run, admits="invite")
    invited = msgspec.structs.replace(status, run=closed)
    assert join_line(invited) == ""
    assert "hypergpud invite" in Markup(page_html(invited)).words
