"""The rules for Prometheus and the dashboard for Grafana name metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.observer.metrics import metrics_text
from protocol import journal
from protocol.status import StatusState, status_at
from tests.story import AT, PEERS, certified, day, folded, started

CONFIGS = Path(__file__).parents[3] / "configs"
RULES = CONFIGS / "prometheus" / "alerts.yml"
DASHBOARD = CONFIGS / "grafana" / "hypergpu.json"
NAME = re.compile(r"\bhypergpu_\w+")


def exported() -> str:
    return metrics_text(status_at(StatusState(), AT)).decode()


def names() -> set[str]:
    return set(re.findall(r"^(hypergpu_\w+)", exported(), re.MULTILINE))


def labels_of(name: str) -> set[str]:
    """The values of all labels of a metric."""
    return set(re.findall(rf'^{name}{{[^}}]*?="([^"]+)"', exported(), re.MULTILINE))


def test_every_alert_names_metrics_that_exist_and_says_what_to_do() -> None:
    text = RULES.read_text(encoding="utf-8")
    expressions = re.findall(r"expr: (.+)", text)
    assert len(expressions) == text.count("- alert:") == text.count("action:")
    for expression in expressions:
        named = set(NAME.findall(expression))
        assert named <= names(), expression
        assert named or 'up{job="hypergpu"}' in expression
        for name, value in re.findall(r'(hypergpu_\w+){\w+="(\w+)"}', expression):
            assert value in labels_of(name), expression


def test_every_query_of_the_dashboard_names_a_metric_that_exists() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= len(dashboard["panels"]) >= 12
    for query in queries:
        named = set(NAME.findall(query))
        assert named, query
        assert named <= names(), query
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: apt-get install prometheus")
def test_alerts_fire_and_stay_silent_as_their_tests_say() -> None:
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ):
        done = subprocess.run(
            ["promtool", *arguments],
            cwd=RULES.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_count_phases_clipped_work_and_audits() -> None:
    state = folded(
        [
            *day(),
            certified(7, at=AT, kept={PEERS[1]: 0.5, PEERS[2]: 0.2}),
            journal.WorkAudited(
                number=7, peer=PEERS[1], score=0.4, scores=(0.4, 0.4, 0.4), favours=False
            ),
        ]
    )
    text = metrics_text(status_at(state, AT)).decode()
    assert 'hypergpu_phase_seconds_bucket{le="10",phase="train"} 0.0' in text
    assert 'hypergpu_phase_seconds_bucket{le="30",phase="train"} 7.0' in text
    assert 'hypergpu_phase_seconds_count{phase="train"} 7.0' in text
    assert 'hypergpu_phase_seconds_bucket{le="30",phase="round"} 6.0' in text
    assert "hypergpu_clipped_contributions_total 2.0" in text
    assert 'hypergpu_audits_total{verdict="against"} 1.0' in text


def test_metrics_say_that_the_disk_refuses_until_it_was_written_again() -> None:
    full = journal.Warned(at=AT, code=journal.DISK_FULL, message="nothing can be offered: full")
    state = folded([started(), full])
    assert "hypergpu_disk_refuses 1.0" in metrics_text(status_at(state, AT + 1)).decode()
    assert "hypergpu_disk_refuses 0.0" in metrics_text(status_at(state, AT + 60)).decode()
