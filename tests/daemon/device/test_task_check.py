"""Tests of `hypergpud task check`: what it reports of good and of faulty tasks."""

from __future__ import annotations

import pytest

from daemon.device.processor import Device
from daemon.device.settings import Job, WorkerSettings
from daemon.device.task_check import CheckRequest, Finding, check_task
from protocol.run.manifest import Inner
from tests.daemon.device.conftest import TINY

MODULE = "tests.daemon.device.checked_tasks"


def check(task: str, **options: int | float | str | bool) -> tuple[bool, list[Finding]]:
    job = Job(
        task=task,
        task_options=options,
        seed=3,
        inner=Inner(batch_size=4),
        peer="",
        holds_out=True,
    )
    settings = WorkerSettings(device="cpu", threads=1, allow_custom_task=True)
    found: list[Finding] = []
    request = CheckRequest(job=job, settings=settings)
    return check_task(request, Device(settings), found.append), found


def test_a_shipped_task_passes_every_part() -> None:
    good, found = check("byte_gpt", **TINY)
    assert good
    assert [finding.part for finding in found] == [
        "model",
        "data",
        "digest",
        "step 1",
        "step 2",
        "evaluate",
        "sample",
        "export",
    ]
    assert all(finding.kind == "ok" for finding in found)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Raises", "checked_tasks.py"),
        ("NotANumber", "loss()), with sample"),
        ("BadEvaluation", 'not a dict with a "loss"'),
        ("Nowhere", "defines no Nowhere"),
    ],
)
def test_a_faulty_task_fails_with_its_place(name: str, words: str) -> None:
    good, found = check(f"{MODULE}:{name}")
    assert not good
    assert found[-1].kind == "fault"
    assert words in found[-1].text


def test_parameters_without_a_gradient_and_random_data_are_noted() -> None:
    good, found = check(f"{MODULE}:Unused")
    assert good
    notes = [finding.text for finding in found if finding.kind == "note"]
    assert any("spare.weight" in text for text in notes)
    assert any("other tensors at each call" in text for text in notes)


def test_an_evaluation_that_runs_out_of_memory_scores_fewer_samples_at_a_time() -> None:
    good, found = check(f"{MODULE}:ScoresFew")
    assert good, found[-1]
    (scored,) = [finding.text for finding in found if finding.part == "evaluate"]
    (plain,) = [
        finding.text for finding in check(f"{MODULE}:Good")[1] if finding.part == "evaluate"
    ]
    assert scored.split(" (")[0] == plain.split(" (")[0]
