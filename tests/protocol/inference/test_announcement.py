"""The directory of stages: freshness, serials, lost stages and its bound."""

from __future__ import annotations

import msgspec
import pytest

from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.inference.announcement import (
    ANNOUNCEMENT_LIFE_S,
    MAX_STAGES,
    HeardStage,
    StageAnnouncement,
    StageDirectory,
    announce_stage,
)
from protocol.inference.layers import LayerRange

MODEL = b"m" * 32
ONE = Signer(b"1" * 32)


def heard(serial: int, signer: Signer = ONE, age_s: float = 0.0, **more: object) -> HeardStage:
    stage = StageAnnouncement(
        model=MODEL,
        serial=serial,
        name="one",
        layers=LayerRange(first=0, stop=2),
        kernel="k",
        layer_tokens_per_s=10.0,
        cache_tokens_free=100,
    )
    changed = msgspec.structs.replace(stage, **more)
    return HeardStage(signed=announce_stage(changed, signer), age_s=age_s)


def test_directory_takes_the_newest_announcement() -> None:
    directory = StageDirectory(MODEL)
    assert directory.hear(heard(2), 0)
    assert not directory.hear(heard(1, name="old"), 1)
    assert directory.hear(heard(3, name="new"), 1)
    assert [known.stage.name for known in directory.stages(1)] == ["new"]


def test_announcement_grows_old_also_where_it_is_passed_on() -> None:
    first, second = StageDirectory(MODEL), StageDirectory(MODEL)
    first.hear(heard(1), 100)
    (passed,) = first.heard(100 + ANNOUNCEMENT_LIFE_S - 1)
    assert second.hear(passed, 7)
    assert second.stages(7.5)
    assert not second.stages(9)
    assert not first.stages(101 + ANNOUNCEMENT_LIFE_S)


def test_lost_stage_comes_back_with_a_newer_announcement_alone() -> None:
    directory = StageDirectory(MODEL)
    directory.hear(heard(5), 0)
    directory.lose(ONE.peer)
    assert not directory.hear(heard(5), 0)
    assert not directory.stages(0)
    assert directory.hear(heard(6), 0)


def test_full_stage_has_no_room_until_it_announces_itself_again() -> None:
    directory = StageDirectory(MODEL)
    directory.hear(heard(5), 0)
    directory.mark_full(ONE.peer)
    assert directory.stages(0)[0].stage.cache_tokens_free == 0
    directory.hear(heard(6), 0)
    assert directory.stages(0)[0].stage.cache_tokens_free == 100


def test_directory_refuses_other_models_and_forged_announcements() -> None:
    directory = StageDirectory(MODEL)
    with pytest.raises(PeerFault, match="another model"):
        directory.hear(heard(1, model=b"x" * 32), 0)
    genuine = heard(1)
    forged = msgspec.structs.replace(genuine.signed, peer=Signer(b"2" * 32).peer)
    with pytest.raises(PeerFault, match="signature"):
        directory.hear(HeardStage(signed=forged, age_s=0), 0)
    assert not directory.stages(0)


def test_directory_keeps_a_bounded_number_of_stages() -> None:
    directory = StageDirectory(MODEL)
    for number in range(MAX_STAGES + 3):
        signer = Signer(number.to_bytes(32, "big"))
        directory.hear(heard(1, signer), number / 1000)
    assert len(directory.stages(1)) == MAX_STAGES


@pytest.mark.parametrize("speed", [0.0, 5e-324, 1e-300, float("nan"), float("inf"), 1e16])
def test_speed_that_makes_times_infinite_is_refused(speed: float) -> None:
    directory = StageDirectory(MODEL)
    with pytest.raises(PeerFault, match="announcement"):
        directory.hear(heard(1, layer_tokens_per_s=speed), 0)
    assert not directory.stages(0)


def test_peer_that_invents_stages_pushes_out_its_own() -> None:
    directory = StageDirectory(MODEL)
    directory.hear(heard(1, age_s=10.0), 0, ONE.peer)
    for number in range(MAX_STAGES + 5):
        invented = Signer(number.to_bytes(32, "big"))
        assert directory.hear(heard(1, invented), 0, "liar")
    known = directory.stages(0)
    assert len(known) == MAX_STAGES
    assert ONE.peer in {one.peer for one in known}
