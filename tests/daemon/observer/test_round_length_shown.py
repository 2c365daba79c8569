"""The length of the next rounds in the status, the page and the metrics."""

from __future__ import annotations

from msgspec.structs import replace

from daemon.cli.terminal.status_text import status_text
from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from protocol.status import status_at
from tests.story import AT, certified, day, folded


def test_status_page_and_metrics_show_the_next_rounds_length_and_its_reason() -> None:
    why = "rounds of 4.2 s: the exchange takes 0.4 s"
    last = replace(certified(7, at=AT), next_round_s=4.2, next_round_reason=why)
    status = status_at(folded([*day(), last]), AT)
    assert (status.run.next_round_s, status.run.next_round_reason) == (4.2, why)
    assert why in page_html(status)
    assert why in status_text(status, color=False)
    assert "hypergpu_next_round_seconds 4.2" in metrics_text(status).decode()


def test_metrics_have_no_length_of_rounds_before_a_plan_chose_one() -> None:
    status = status_at(folded(day()), AT)
    assert status.run.next_round_s is None
    assert "hypergpu_next_round_seconds NaN" in metrics_text(status).decode()
