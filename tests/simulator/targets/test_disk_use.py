"""What a node writes in a round, from what was read of its status."""

from __future__ import annotations

import pytest

from protocol.run.manifest_file import parse_manifest
from simulator.bench.targets.disk_use import RUN, DiskReading, per_round_bytes


def test_bytes_of_a_round_are_those_between_the_readings() -> None:
    readings = [
        DiskReading(number, written) for number, written in ((3, 1_000), (4, 1_100), (7, 1_800))
    ]
    assert per_round_bytes(readings) == 200.0


def test_bytes_of_a_round_need_a_round() -> None:
    with pytest.raises(ValueError, match="no round"):
        per_round_bytes([DiskReading(3, 1_000), DiskReading(3, 1_100)])


def test_measured_run_has_the_codec_and_the_rounds_that_its_target_names() -> None:
    manifest = parse_manifest(RUN, "the run")
    assert manifest.codec == "int4"
    assert manifest.round.seconds == manifest.round.min_seconds == 5.0
