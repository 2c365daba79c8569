"""The reporter loses no certified work, and repeats none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.oracle.reporter import OracleEndpoint, OracleReporter, ReportedWork, ReportSigner
from protocol.journal import JournalEvent
from tests.daemon.oracle.signed_reports import ONE, Desk


class Oracle:
    """A desk that can be away, refuse, or lose its answer."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.away = False
        self.status: int | None = None
        self.bodies: list[bytes] = []

    def __call__(self, url: str, body: bytes) -> int:
        if self.away:
            raise ConnectionRefusedError(111, "nobody there")
        self.bodies.append(body)
        return self.status or self.desk.take(body, "/" + url.split("/", 3)[3])[0]


class Worker:
    def __init__(self, folder: Path, oracle: Oracle, *, legacy: bool = False) -> None:
        self.figures = ReportedWork()
        self.events: list[JournalEvent] = []
        self.reporter = OracleReporter(
            oracle=OracleEndpoint(url="http://oracle.example/", legacy=legacy),
            signer=ReportSigner(wallet=ONE.address, sign=ONE.sign_text),
            folder=folder,
            figures=lambda: self.figures,
            record=self.events.append,
            now=lambda: oracle.desk.now,
            send=oracle,
        )

    def report(self, samples: int, rounds: int = 1) -> bool:
        self.figures = ReportedWork(samples=samples, rounds=rounds)
        return self.reporter.report()


@pytest.mark.parametrize("legacy", [False, True])
def test_reports_are_kept_until_the_oracle_accepts_them(tmp_path: Path, legacy: bool) -> None:
    oracle = Oracle()
    worker = Worker(tmp_path, oracle, legacy=legacy)
    assert worker.report(0)
    assert oracle.bodies == []
    oracle.away = True
    assert not worker.report(10)
    oracle.away, oracle.status = False, 500
    assert not worker.report(30)
    oracle.status = None
    assert worker.report(35)
    assert oracle.desk.receiver.tokens(ONE.address) == 35
    # Each kind of failure is reported once.
    assert len(worker.events) == 2


def test_the_next_process_sends_only_unsent_reports(tmp_path: Path) -> None:
    oracle = Oracle()
    first = Worker(tmp_path, oracle)
    assert first.report(10)
    oracle.away = True
    assert not first.report(25)
    oracle.away = False
    second = Worker(tmp_path, oracle)
    assert second.report(25)
    assert oracle.desk.receiver.tokens(ONE.address) == 25
    assert second.report(25)
    assert len(oracle.bodies) == 2
    # The clock was set back.
    oracle.desk.now -= 30.0
    assert second.report(26)
    stamps = [json.loads(body)["timestamp"] for body in oracle.bodies]
    assert stamps == sorted(set(stamps))
