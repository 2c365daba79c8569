"""The API does what its OpenAPI document says, for requests that fit it and for others.

schemathesis makes the requests from `/api/openapi.json`: missing, wrong and huge parameters, other
methods, other media types, broken bodies. See https://schemathesis.readthedocs.io/.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from daemon.observer.api.openapi import openapi_document
from tests.daemon.observer.full_process import TOKEN
from tests.daemon.observer.test_api_garbage import MAX_GROWTH_BYTES, resident_bytes

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("schemathesis") is None, reason="schemathesis is not installed: make setup-test"
    ),
]
ROOT = Path(__file__).parents[3]
# Requests for each operation that takes a parameter or a body. Raw garbage is in test_api_garbage.
EXAMPLES, WARM_UP_EXAMPLES = 250, 10
RUN_S = 600.0
LEAST_REQUESTS = 2_000
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "positive_data_acceptance",
)


@contextmanager
def full_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a web side with everything behind it. Yields its address and its process."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.observer.full_process", str(folder)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def fuzz(url: str, examples: int, report: Path, seed: int = 19) -> tuple[int, str]:
    """Send requests made from the document. Returns how many were sent, and what failed."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{url}api/openapi.json",
            f"--max-examples={examples}",
            f"--seed={seed}",
            f"--checks={','.join(CHECKS)}",
            "--phases=examples,coverage,fuzzing",
            "--mode=all",
            "--continue-on-failure",
            "--no-shrink",
            "--no-color",
            "--warnings=off",
            "--generation-database=none",
            "--exclude-path=/ws",
            f"--header=Authorization: Bearer {TOKEN}",
            f"--report-ndjson-path={report}",
        ],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        cwd=report.parent,
    )
    sent = report.read_text(encoding="utf-8").count('"status_code"')
    return sent, "" if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.timeout(1200)
def test_requests_made_from_the_document_get_what_it_says(tmp_path: Path) -> None:
    with full_process(tmp_path) as (url, process):
        fuzz(url, WARM_UP_EXAMPLES, tmp_path / "warm.ndjson")
        before = resident_bytes(process.pid)
        sent, failed = fuzz(url, EXAMPLES, tmp_path / "events.ndjson")
        grown = resident_bytes(process.pid) - before
    print(f"{sent} requests made from the document; grew {grown:,} bytes")
    assert not failed, failed
    assert sent >= LEAST_REQUESTS
    assert grown < MAX_GROWTH_BYTES
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_document_is_readable_for_schemathesis_and_lists_each_operation_once() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(openapi_document())
    labels = [one.ok().label for one in schema.get_all_operations()]
    assert len(labels) == len(set(labels)) > 20
