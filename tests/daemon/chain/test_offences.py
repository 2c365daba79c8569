"""Offences before a settlement carries them: each is listed once, can change, and is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.chain import offences
from daemon.chain.offences import file_offence, filed_offences, not_settled
from protocol.errors import UserError
from protocol.settlement.dataset import EpochTerms
from tests.protocol.settlement.paid import wallet

GUILTY = wallet(1).address


def test_an_offence_of_a_settled_epoch_is_not_repeated(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence-file"
    evidence.write_bytes(b"one")
    first = file_offence(tmp_path, tmp_path, GUILTY, "summed wrongly", evidence, 10)
    evidence.write_bytes(b"two")
    second = file_offence(tmp_path, tmp_path, GUILTY, "and again", evidence, 20)
    terms = EpochTerms(epoch=3, pool=b"\1", tip=b"t" * 32, offences=(first.term,))
    assert not_settled(filed_offences(tmp_path), [terms]) == (second,)
    assert not_settled(filed_offences(tmp_path), []) == (first, second)


def test_filing_again_replaces_the_offence(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence-file"
    evidence.write_bytes(b"one")
    first = file_offence(tmp_path, tmp_path, GUILTY, "summed wrongly", evidence, 10)
    file_offence(tmp_path, tmp_path, GUILTY, "summed wrongly in round 7", evidence, 12)
    assert filed_offences(tmp_path) == [
        replace(first, reason="summed wrongly in round 7", samples=12)
    ]


def test_filings_are_bounded_and_a_damaged_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offences, "MAX_FILED", 2)
    monkeypatch.setattr(offences, "MAX_EVIDENCE_BYTES", 8)
    evidence = tmp_path / "evidence-file"
    for content in (b"1", b"2"):
        evidence.write_bytes(content)
        file_offence(tmp_path, tmp_path, GUILTY, "x", evidence, 0)
    evidence.write_bytes(b"3")
    with pytest.raises(UserError, match="2 offences are filed already"):
        file_offence(tmp_path, tmp_path, GUILTY, "x", evidence, 0)
    for content in (b"", b"123456789"):
        evidence.write_bytes(content)
        with pytest.raises(UserError, match="must have 1 byte"):
            file_offence(tmp_path, tmp_path, GUILTY, "x", evidence, 0)
    (tmp_path / offences.FILE).write_bytes(b"[{]")
    with pytest.raises(UserError, match="is damaged"):
        filed_offences(tmp_path)
