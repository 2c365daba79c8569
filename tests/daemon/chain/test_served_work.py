"""What a node served: added up from receipts, reported once, and recorded once on the chain."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from daemon.chain.inference_recorder import RECORDED_FILE, InferenceRecorder
from daemon.chain.served_work import ServedWork, reported_work
from daemon.services.inference.receipt_folder import FOLDER
from protocol.chain.errors import ChainUnreachable
from protocol.chain.port import InferenceRecord, SentTransaction
from protocol.identity import Signer
from protocol.inference.receipt import ServiceReceipt, countersign, encode_receipt, sign_receipt
from protocol.journal import JournalEvent, Warned
from simulator.fakes.chain import FakeChain
from simulator.fakes.ledger import FakeLedger
from tests.daemon.oracle.signed_reports import ONE
from tests.daemon.oracle.test_reporter import Oracle, Worker

STAGE, PAYER = Signer(bytes([1]) * 32), Signer(bytes([2]) * 32)
MODEL = b"m" * 32


def write(home: Path, session: str, tokens: int, model: bytes = MODEL) -> None:
    """A client's receipt, as a stage keeps it."""
    receipt = ServiceReceipt(
        model=model,
        payer=PAYER.peer,
        stage=STAGE.peer,
        session=session,
        requests=2,
        tokens=tokens,
        layer_tokens=3 * tokens,
        busy_ms=10 * tokens,
    )
    path = home / FOLDER / session
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_receipt(countersign(sign_receipt(receipt, PAYER), STAGE)))
    # A later file has a later date, also where the clock of the file system is coarse.
    os.utime(path, ns=(tokens * 10**9, tokens * 10**9))


class Node:
    """A recorder over a fake chain that may be away."""

    def __init__(self, home: Path) -> None:
        self.time_s = 0.0
        self.ledger = FakeLedger(self._now, owner=ONE.address, settlers=(ONE.address,), needed=1)
        self.chain = FakeChain(self.ledger, ONE.address, lambda _: None)
        self.events: list[JournalEvent] = []
        self.home, self.away, self.sent = home, False, list[InferenceRecord]()
        real = self.chain.record_inference

        def record(made: InferenceRecord) -> SentTransaction:
            if self.away:
                raise ChainUnreachable("nobody there")
            self.sent.append(made)
            return real(made)

        self.chain.record_inference = record  # type: ignore[method-assign]

    def _now(self) -> float:
        self.time_s += 10.0
        return self.time_s

    def recorder(self) -> InferenceRecorder:
        work = ServedWork(self.home, print)
        return InferenceRecorder(
            lambda: self.chain, self.home, work.models, self.events.append, nullcontext
        )

    def register(self) -> None:
        assert self.chain.wait(self.chain.register("one"), 30).done


def test_served_work_adds_up_sessions_and_reads_changes(tmp_path: Path) -> None:
    said: list[str] = []
    work = ServedWork(tmp_path, said.append)
    assert work.models() == []
    write(tmp_path, "a", 10)
    write(tmp_path, "b", 5)
    write(tmp_path, "c", 7, b"o" * 32)
    (tmp_path / FOLDER / "d").write_bytes(b"garbage")
    first, other = work.models()
    assert (first.model, first.tokens, first.requests, first.layer_tokens) == (MODEL, 15, 4, 45)
    assert (other.tokens, other.busy_ms) == (7, 70)
    write(tmp_path, "a", 30)
    assert work.models()[0].tokens == 35
    assert len(said) == 1, "damage is named once"
    (tmp_path / FOLDER / "b").unlink()
    assert work.models()[0].tokens == 30


@pytest.mark.parametrize("legacy", [False, True])
def test_oracle_gets_served_tokens_once_with_their_latency(tmp_path: Path, legacy: bool) -> None:
    oracle = Oracle()
    worker = Worker(tmp_path, oracle, legacy=legacy)
    work = ServedWork(tmp_path, print)
    write(tmp_path, "a", 10)
    worker.figures = reported_work((4, 1), work.models())
    assert worker.reporter.report()
    assert worker.reporter.report()
    write(tmp_path, "a", 16)
    oracle.away = True
    worker.figures = reported_work((4, 1), work.models())
    assert not worker.reporter.report()
    oracle.away = False
    # The next process reports what the oracle did not accept.
    second = Worker(tmp_path, oracle, legacy=legacy)
    second.figures = worker.figures
    oracle.desk.now += 1
    assert second.reporter.report()
    bodies = [json.loads(body) for body in oracle.bodies]
    payloads = [body["payload"] if legacy else body for body in bodies]
    names = (
        ("processed_tokens", "avg_latency_ms", "tasks_completed")
        if legacy
        else ("tokensProcessed", "avgLatencyMs", "requestCount")
    )
    assert [tuple(payload[name] for name in names) for payload in payloads] == [
        (14, 10.0, 3),
        (6, 10.0, 0),
    ]
    assert oracle.desk.receiver.tokens(ONE.address) == 20


def test_chain_gets_each_stretch_of_service_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    write(tmp_path, "a", 10)
    assert node.recorder().send() == 0
    assert isinstance(node.events[-1], Warned)
    assert "not registered yet" in node.events[-1].message
    node.register()
    recorder = node.recorder()
    assert [recorder.send(), recorder.send()] == [10, 0]
    write(tmp_path, "a", 16)
    node.away = True
    assert recorder.send() == 0
    node.away = False
    # The next process sends what is missing, and no more.
    assert [node.recorder().send(), node.recorder().send()] == [6, 0]
    assert [record.tokens for record in node.sent] == [10, 6]
    assert {record.model for record in node.sent} == {MODEL}


def test_damaged_memory_of_records_repeats_none(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.register()
    write(tmp_path, "a", 10)
    assert node.recorder().send() == 10
    (tmp_path / RECORDED_FILE).write_bytes(b"{")
    assert node.recorder().send() == 0
    assert any("cannot read" in str(event) for event in node.events)
