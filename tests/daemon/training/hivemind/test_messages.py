"""Tests that messages between node and hivemind process arrive intact, or are refused."""

from __future__ import annotations

import msgspec
import pytest

from daemon.children.frames import Deframer
from daemon.children.messages import ChildMessage, frame
from daemon.services.training.hivemind.messages import (
    AverageVector,
    ConnectPeer,
    MemberInfo,
    StartPeer,
    VectorAveraged,
    decode_command,
    decode_report,
)
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings

INFO = MemberInfo(peer="12D3Koo", number=3, samples=40, loss=None, sketch=(0.5, -1.0))
AVERAGED = VectorAveraged(
    id=7,
    group=3,
    members=(INFO,),
    elements=100,
    local_elements=0,
    missing_senders=0,
    parts_expected=6,
    parts_summed=6,
    matchmaking_s=0.1,
    all_reduce_s=0.2,
)


@pytest.mark.parametrize(
    "message",
    [
        StartPeer(
            id=1,
            peer=PeerSettings(announce=("/ip4/1.2.3.4/tcp/5",)),
            averager=AveragerSettings(prefix="x"),
            elements=10,
        ),
        ConnectPeer(id=2, maddrs=("/ip4/127.0.0.1/tcp/1/p2p/Qm",)),
        AverageVector(id=3, weight=40.0, group_size=4, find_s=5.0, info=INFO),
    ],
)
def test_decode_command_returns_what_was_sent(message: ChildMessage) -> None:
    (body,) = Deframer().feed(frame(message))
    assert decode_command(body) == message


def test_decode_report_returns_what_was_sent() -> None:
    (body,) = Deframer().feed(frame(AVERAGED))
    assert decode_report(body) == AVERAGED


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", msgspec.msgpack.encode({"type": "Train", "id": 1}), frame(AVERAGED)[4:]]
)
def test_decode_command_refuses_other_bytes(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_command(body)


@pytest.mark.parametrize(
    "change", [{"local_elements": 1}, {"missing_senders": 1}, {"parts_summed": 5}]
)
def test_an_average_with_a_missing_part_is_not_whole(change: dict[str, int]) -> None:
    assert AVERAGED.whole
    assert not msgspec.structs.replace(AVERAGED, **change).whole


def test_member_info_accepts_complete_records_only() -> None:
    plain = msgspec.to_builtins(INFO)
    assert msgspec.convert(plain, MemberInfo) == INFO
    for bad in ({**plain, "number": "3"}, {**plain, "more": 1}, {"peer": "x"}, [1, 2], None):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, MemberInfo)
