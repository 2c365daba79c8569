"""What node and hivemind process say to each other: one command at a time, each answered once, with
its `id`.

The shared memory holds three vectors: what is averaged, the anchor, the momentum.
"""

from __future__ import annotations

import msgspec

from daemon.children.messages import ChildMessage, CommandDone
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings

# Values of its anchor that a member shows the others: differences of one round's size are seen, 64
# x 4 bytes cost nothing.
SKETCH = 64


class MemberInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a member tells its group before the all-reduce.

    All of it is its own word: hivemind knows it by another key than we do.
    """

    peer: str
    number: int  # of the rounds behind its anchor
    samples: int
    loss: float | None
    sketch: tuple[float, ...]  # evenly spaced values of its anchor


class StartPeer(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Start the peer and its averager of `elements` float32."""

    id: int
    peer: PeerSettings
    averager: AveragerSettings
    elements: int


class ConnectPeer(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Connect to another member's hivemind peer."""

    id: int
    maddrs: tuple[str, ...]


class AverageVector(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Average what is in the shared memory; what hivemind makes of it takes its place, whether it
    calls that a success or not.
    """

    id: int
    weight: float
    group_size: int
    find_s: float
    said: MemberInfo


class ShareState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Anchor and momentum in the shared memory are those of round `number`: copy them for whoever
    asks.
    """

    id: int
    number: int


class DownloadState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Put some other peer's anchor and momentum into the shared memory."""

    id: int


class PeerReady(ChildMessage, frozen=True, kw_only=True, tag=True):
    id: int
    peer: str  # hivemind's id
    maddrs: tuple[str, ...]


class CommandFailed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """It did not work; `why` is hivemind's own word."""

    id: int
    why: str


class VectorAveraged(ChildMessage, frozen=True, kw_only=True, tag=True):
    """hivemind calls it a success. See `averaging.Outcome` for what it proves."""

    id: int
    # Members of the group, whatever became of them.
    group: int
    said: tuple[MemberInfo, ...]  # by those whose word could be read
    elements: int
    local_elements: int
    missing_senders: int
    parts_expected: int
    parts_summed: int
    matchmaking_s: float
    all_reduce_s: float

    @property
    def whole(self) -> bool:
        """As far as this member sees. It does not see what other reducers left out."""
        return (
            not self.local_elements
            and not self.missing_senders
            and self.parts_summed == self.parts_expected
        )


class StateDownloaded(ChildMessage, frozen=True, kw_only=True, tag=True):
    id: int
    number: int


HivemindCommand = StartPeer | ConnectPeer | AverageVector | ShareState | DownloadState
HivemindReport = PeerReady | CommandDone | CommandFailed | VectorAveraged | StateDownloaded

_commands: msgspec.msgpack.Decoder[HivemindCommand] = msgspec.msgpack.Decoder(HivemindCommand)
_reports: msgspec.msgpack.Decoder[HivemindReport] = msgspec.msgpack.Decoder(HivemindReport)


def decode_command(body: bytes) -> HivemindCommand:
    """Raises `msgspec.DecodeError`."""
    return _commands.decode(body)


def decode_report(body: bytes) -> HivemindReport:
    """Raises `msgspec.DecodeError`."""
    return _reports.decode(body)
