"""Tests that this version opens a home of the version before: same file names, same formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.chain.home_runs import opened_record, runs_of
from daemon.disk.checkpoint_file import checkpoint_name
from daemon.disk.file_disk import FileDisk
from daemon.disk.ledger_file import FORMAT as LEDGER_FORMAT
from daemon.disk.run_folder import RunFolder
from daemon.disk.task_file import load_task
from daemon.home.recent_state import last_port, last_run, load_recent_state
from daemon.home.serials import Serials
from daemon.journal_reader import JournalReader
from daemon.round_story import RoundStories
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import decode_tip, genesis
from protocol.ports.offload import inline
from tests.daemon.earlier_home import RUN as EARLIER_RUN
from tests.daemon.earlier_home import TIP, earlier_file

RUN = "ab" * 32
ADDRESS = "/ip4/192.0.2.1/tcp/46273/p2p/12D3KooWQLzsjPi3VrBLqwCHuXHNrECmrNaH7s29XPNkBPFhdTPm"


def test_the_files_of_a_home_keep_their_names() -> None:
    folder = RunFolder(Path("/home"), bytes.fromhex(RUN))
    names = [
        path.relative_to("/home").as_posix().replace(RUN, "RUN")
        for path in (
            folder.checkpoints,
            folder.abandoned,
            folder.ledger,
            folder.view_records,
            folder.certificates,
            folder.proofs,
        )
    ]
    assert names == [
        "runs/RUN/checkpoints",
        "runs/RUN/checkpoints/left",
        "runs/RUN/ledger.safetensors",
        "runs/RUN/stands",
        "runs/RUN/certificates",
        "runs/RUN/proofs",
    ]
    assert LEDGER_FORMAT == "hypergpu/ledger/2"


def test_the_recent_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    text = f'{{"port": 46273, "runs": [{{"run": "{RUN}", "members": ["{ADDRESS}"]}}]}}'
    (tmp_path / "remembered.json").write_text(text, encoding="utf-8")
    state = load_recent_state(tmp_path)
    assert state is not None
    assert (state.runs[0].run, state.runs[0].members) == (RUN, (ADDRESS,))
    assert last_port(tmp_path) == 46273


async def test_the_run_folder_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, EARLIER_RUN)
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / checkpoint_name(1, TIP)).write_bytes(earlier_file("checkpoint"))
    for name in ("ledger.safetensors", "stands", "certificates", "manifest", "task"):
        (folder.ledger.parent / name).write_bytes(earlier_file(name))
    disk = FileDisk(tmp_path, inline, report=pytest.fail)

    (kept,) = runs_of(tmp_path)
    manifest = kept.manifest
    assert (kept.run, manifest.name, manifest.rules) == (EARLIER_RUN, "small-digits", 2)
    signed = last_run(tmp_path)
    assert signed is not None
    assert signed.run == EARLIER_RUN

    (record,) = await disk.certificates(EARLIER_RUN, 1, 10)
    (certificate,) = opened_record(record, EARLIER_RUN, manifest)
    tip = extend(genesis(EARLIER_RUN), certificate)
    assert (tip.hash, tip.number) == (TIP, 1)

    checkpoint = await disk.load_checkpoint(EARLIER_RUN)
    assert checkpoint is not None
    assert (checkpoint.tip, checkpoint.number) == (TIP, 1)
    vectors = (checkpoint.anchor, checkpoint.momentum, checkpoint.inner)
    assert [vector.tolist() for vector in vectors] == [[1, 2], [3, 4], [5, 6, 7]]
    assert checkpoint.shapes == (("w", (2,)),)
    stood = decode_tip(checkpoint.stood)
    assert stood is not None
    assert (stood.hash, stood.members) == (TIP, tip.members)

    views = await disk.load_view_records(EARLIER_RUN)
    assert [(view.parent, view.view) for view in views[:2]] == [(EARLIER_RUN, 1), (TIP, 1)]
    task = load_task(tmp_path, EARLIER_RUN)
    assert task is not None
    assert task.parameters[0].name == "first.weight"


async def test_the_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, EARLIER_RUN)
    folder.ledger.parent.mkdir(parents=True)
    folder.ledger.write_bytes(earlier_file("ledger.safetensors"))
    ledger = await FileDisk(tmp_path, inline, report=pytest.fail).load_ledger(EARLIER_RUN)
    assert ledger is not None
    assert (ledger.tip, ledger.next_seq, ledger.weight, ledger.carried) == (TIP, 5, 7, 2)
    assert (ledger.offered_seq, ledger.offered_weight, bytes(ledger.offered)) == (4, 8, b"offered")
    assert (ledger.samples, ledger.drawn, ledger.rounds) == (40, 48, 2)
    assert (ledger.later_samples, ledger.later_rounds) == (8, 1)
    vectors = (ledger.residue, ledger.displacement, ledger.later)
    assert [vector.tolist() for vector in vectors] == [[1, 2], [3, 4], [5, 6]]
    (sent,) = ledger.sent
    assert (sent.seq, sent.weight, sent.factor, sent.left) == (3, 9, 0.5, 1)
    assert bytes(sent.encoded) == b"sent"


def test_the_journal_of_an_earlier_version_tells_the_story_of_a_round(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text(
        '{"type":"NodeStarted","at":1.0,"peer":"me","name":"first","role":"node",'
        '"version":"0.1.0","addresses":[],"run":"dc5d","run_name":"small-digits",'
        '"task":"simple_cnn","engine":"native","min_peers":2,"assumed":[]}\n'
        '{"type":"Planned","at":2.0,"number":1,"view":0,"leader":"other",'
        '"members":["me","other"],"reason":"one row of 2"}\n'
        '{"type":"Alone","at":3.0,"number":1,"samples_pending":8,"reason":"no other is here"}\n',
        encoding="utf-8",
    )
    reader = JournalReader(journal)
    (story,) = RoundStories(keep=1).read(reader).stories
    assert reader.unreadable == 0
    assert (story.run_name, story.number, story.views[0].leader) == ("small-digits", 1, "other")


def test_the_serials_of_an_earlier_version_are_continued(tmp_path: Path) -> None:
    (tmp_path / "serials").write_text("1795992586669382391", encoding="ascii")
    assert Serials(tmp_path / "serials", lambda: 10**18).next() > 1795992586669382391
