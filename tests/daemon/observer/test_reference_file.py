"""The file of a reference curve: read when it changes, and no damage takes the page away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.observer.reference_file import ReferenceFile, write_reference
from protocol.status.reference import MAX_REFERENCE_BYTES, ReferenceCurve, ReferencePoint

CURVE = ReferenceCurve(
    label="one machine alone",
    began_at=10.0,
    points=(ReferencePoint(seconds=0.0, samples=0, loss=5.5),),
)


def test_reference_file_shows_each_new_curve(tmp_path: Path) -> None:
    path = tmp_path / "alone.json"
    file = ReferenceFile(path)
    assert file.curve() is None
    write_reference(path, CURVE)
    assert file.curve() == CURVE
    assert file.curve() is file.curve()
    longer = ReferenceCurve(label="other", began_at=11.0)
    write_reference(path, longer)
    assert file.curve() == longer


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b'{"label": "x", "began_at": 0, "points": [{"seconds": -1, "samples": 0, "loss": 1}]}',
        b'{"label": "x", "began_at": 0, "points": [{"seconds": 1e999, "samples": 0, "loss": 1}]}',
        b" " * (MAX_REFERENCE_BYTES + 1),
    ],
)
def test_reference_file_that_is_damaged_is_reported_once_and_keeps_the_last_curve(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alone.json"
    write_reference(path, CURVE)
    file = ReferenceFile(path)
    assert file.curve() == CURVE
    path.write_bytes(damage)
    assert [file.curve() for _ in range(3)] == [CURVE] * 3
    assert caplog.text.count("cannot be shown") == 1
    os.unlink(path)
    assert file.curve() is None
