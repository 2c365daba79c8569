"""Models that the swarm serves: layers nobody serves, holders, and how gaps ended."""

from __future__ import annotations

from msgspec.structs import replace

from daemon.cli.terminal.status_text import status_text
from daemon.observer.coverage_card import coverage_card
from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from protocol.journal import CoverageChanged, CoverageReport, JournalEvent, ServedStage
from protocol.status import Status, status_at
from protocol.status.coverage_records import KEPT_MODELS
from tests.daemon.observer.test_page import Markup
from tests.story import AT, HOSTILE, PEERS, day, folded


def stage(i: int, first: int, stop: int, name: str = "") -> ServedStage:
    return ServedStage(
        peer=PEERS[i],
        name=name or f"stage-{i}",
        first=first,
        stop=stop,
        layer_tokens_per_s=240.0,
        cache_tokens_free=4096,
    )


def served(*stages: ServedStage, name: str = "tiny", model: str = "ab" * 32) -> CoverageReport:
    return CoverageReport(at=AT, model=model, name=name, layers=12, stages=stages)


def changed(missing: str, *, at: float = AT, gap_s: float = 0.0) -> CoverageChanged:
    return CoverageChanged(
        at=at, model="ab" * 32, name="tiny", missing=missing, stages=2, gap_s=gap_s
    )


def shown(*events: JournalEvent) -> Status:
    return status_at(folded([*day("observer"), *events]), AT)


def test_card_names_layers_that_nobody_serves_and_since_when() -> None:
    status = shown(served(stage(1, 0, 6), stage(2, 8, 12)), changed("layers 6 to 7", at=AT - 30))
    page = Markup(page_html(status))
    assert "Nobody serves layers 6 to 7, since" in page.words
    assert "Nobody serves layers 6 to 7 of tiny." in page.words
    assert [(one.first, one.last, one.holders) for one in status.coverage[0].spans] == [
        (0, 5, 1),
        (6, 7, 0),
        (8, 11, 1),
    ]
    assert coverage_card(status).count("<rect") == 3
    text = metrics_text(status).decode()
    assert 'hypergpu_inference_layers{state="missing"} 2.0' in text
    assert 'hypergpu_inference_layers{state="served"} 10.0' in text


def test_card_tells_how_a_gap_ended_and_where_one_stage_is_alone() -> None:
    status = shown(
        served(stage(1, 0, 6)),
        changed("layers 6 to 11", at=AT - 60),
        served(stage(1, 0, 6), stage(2, 4, 12)),
        changed("", at=AT - 48, gap_s=12.0),
    )
    card = coverage_card(status)
    assert "All 12 layers are served, each by 1 or more of 2 stages." in card
    assert "One stage alone holds layers 0 to 3, layers 6 to 11" in card
    assert "Layers were missing 1 time, the last time for 12 s." in card
    assert "All layers of tiny are served again, after 12 s, by 2 stages." in page_html(status)


def test_page_of_a_swarm_that_serves_nothing_has_no_card() -> None:
    assert coverage_card(shown()) == ""


def test_card_escapes_names_and_bounds_hostile_reports() -> None:
    wild = served(stage(1, -5, 1 << 60, HOSTILE), stage(2, 9, 3), name=HOSTILE)
    status = shown(replace(wild, layers=1 << 60))
    assert "<script" not in coverage_card(status)
    assert status.coverage[0].layers <= 1024
    many = shown(*(served(stage(1, 0, 12), model=f"{i:064x}") for i in range(KEPT_MODELS + 3)))
    assert len(many.coverage) == KEPT_MODELS


def test_status_on_a_terminal_names_layers_that_nobody_serves() -> None:
    gap = shown(served(stage(1, 0, 6), stage(2, 8, 12)))
    assert "tiny: nobody serves layers 6 to 7 of 0 to 11; 2 stages" in status_text(gap, color=False)
    whole = shown(served(stage(1, 0, 12)))
    assert "tiny: all layers are served, by 1 stage" in status_text(whole, color=False)
