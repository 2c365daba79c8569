"""The comparison of anchors, on valid safetensors files and on damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from daemon.demo.agreement import anchor_digest, compare_anchors

RUN = "cd" * 32


def checkpoint(root: Path, node: str, number: int, anchor: object, tip: str = "ab" * 32) -> Path:
    file = root / node / "runs" / RUN / "checkpoints" / f"{number}-{tip}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "momentum": np.zeros(3, np.float32),
        "anchor": np.asarray(anchor, np.float32),
        "inner": np.zeros(0, np.float32),
    }
    file.write_bytes(save(tensors, metadata={"run": RUN}))
    return file


def test_identical_anchors_agree_at_the_last_common_round(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        checkpoint(tmp_path, "a", number, [number, 2, 3])
    for number in (9, 10, 11):
        checkpoint(tmp_path, "b", number, [number, 2, 3])
    agreement = compare_anchors([tmp_path / "a", tmp_path / "b"], RUN)
    assert (agreement.agreed, agreement.number) == (True, 10)


def test_anchors_that_differ_in_one_bit_do_not_agree(tmp_path: Path) -> None:
    value = np.array([1.0, 2.0, 3.0], np.float32)
    other = value.copy()
    other.view(np.uint32)[1] ^= 1
    checkpoint(tmp_path, "a", 5, value)
    checkpoint(tmp_path, "b", 5, value)
    checkpoint(tmp_path, "c", 5, other)
    agreement = compare_anchors([tmp_path / node for node in "abc"], RUN)
    assert (agreement.agreed, agreement.number) == (False, 5)
    assert "c " in agreement.reason


def test_minus_zero_and_zero_do_not_agree(tmp_path: Path) -> None:
    checkpoint(tmp_path, "a", 5, [0.0])
    checkpoint(tmp_path, "b", 5, [-0.0])
    assert not compare_anchors([tmp_path / "a", tmp_path / "b"], RUN).agreed


def test_homes_without_a_common_checkpoint_do_not_agree(tmp_path: Path) -> None:
    checkpoint(tmp_path, "a", 1, [1])
    checkpoint(tmp_path, "b", 9, [1])
    agreement = compare_anchors([tmp_path / "a", tmp_path / "b"], RUN)
    assert (agreement.agreed, agreement.number) == (False, None)
    assert "a at 1, b at 9" in agreement.reason
    assert not compare_anchors([tmp_path / "a", tmp_path / "none"], RUN).agreed
    assert not compare_anchors([tmp_path / "a"], RUN).agreed
    assert not compare_anchors([], RUN).agreed


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"x" * 7,
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{x",
    ],
)
def test_damaged_file_does_not_agree(tmp_path: Path, damage: bytes) -> None:
    checkpoint(tmp_path, "a", 5, [1.0])
    checkpoint(tmp_path, "b", 5, [1.0]).write_bytes(damage)
    agreement = compare_anchors([tmp_path / "a", tmp_path / "b"], RUN)
    assert not agreement.agreed
    assert "cannot read the checkpoint" in agreement.reason


def test_truncated_file_does_not_agree(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, "a", 5, np.arange(1000))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="ends"):
        anchor_digest(file)
