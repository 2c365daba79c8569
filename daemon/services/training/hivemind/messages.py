"""Defines the messages between a node and its hivemind process.

The node sends one command at a time. The process answers each command once, with its `id`. The
shared memory holds three vectors: the one that is averaged, the anchor, and the momentum.
"""

from __future__ import annotations

import msgspec

from daemon.children.messages import ChildMessage, CommandDone
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings

# The number of values of its anchor that a member shows the others. They reveal differences as
# small as one round's step, and take 256 bytes.
SKETCH = 64


class MemberInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a member tells its group before the all-reduce.

    All of it is self-reported: hivemind knows the member by another key than HyperGPU does.
    """

    peer: str
    # The number of rounds behind the member's anchor.
    number: int
    samples: int
    loss: float | None
    # Evenly spaced values of the member's anchor.
    sketch: tuple[float, ...]


class StartPeer(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Start the hivemind peer, and its averager of `elements` float32."""

    id: int
    peer: PeerSettings
    averager: AveragerSettings
    elements: int


class ConnectPeer(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Connect to another member's hivemind peer."""

    id: int
    maddrs: tuple[str, ...]


class AverageVector(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Average the vector in the shared memory.

    hivemind's result replaces the vector, whether hivemind reports success or not.
    """

    id: int
    weight: float
    group_size: int
    find_s: float
    info: MemberInfo


class ShareState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Give peers that ask the shared anchor and momentum, as the state of round `number`."""

    id: int
    number: int


class DownloadState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Put another peer's anchor and momentum into the shared memory."""

    id: int


class PeerReady(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The hivemind peer listens. `peer` is its id in hivemind."""

    id: int
    peer: str
    maddrs: tuple[str, ...]


class CommandFailed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command failed; `why` is hivemind's own message."""

    id: int
    why: str


class VectorAveraged(ChildMessage, frozen=True, kw_only=True, tag=True):
    """hivemind reports success. `averager.AllReduceOutcome` says what that proves."""

    id: int
    # The size of the group that was formed; some of its members may have failed since.
    group: int
    # The members whose `MemberInfo` could be read.
    members: tuple[MemberInfo, ...]
    elements: int
    local_elements: int
    missing_senders: int
    parts_expected: int
    parts_summed: int
    matchmaking_s: float
    all_reduce_s: float

    @property
    def whole(self) -> bool:
        """Whether every value was averaged, as far as this member sees.

        A member does not see what other reducers left out of their sums.
        """
        return (
            not self.local_elements
            and not self.missing_senders
            and self.parts_summed == self.parts_expected
        )


class StateDownloaded(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The shared memory holds another peer's state, of round `number`."""

    id: int
    number: int


HivemindCommand = StartPeer | ConnectPeer | AverageVector | ShareState | DownloadState
HivemindReport = PeerReady | CommandDone | CommandFailed | VectorAveraged | StateDownloaded

_commands: msgspec.msgpack.Decoder[HivemindCommand] = msgspec.msgpack.Decoder(HivemindCommand)
_reports: msgspec.msgpack.Decoder[HivemindReport] = msgspec.msgpack.Decoder(HivemindReport)


def decode_command(body: bytes) -> HivemindCommand:
    """Decode a command. Raises `msgspec.DecodeError`."""
    return _commands.decode(body)


def decode_report(body: bytes) -> HivemindReport:
    """Decode a report. Raises `msgspec.DecodeError`."""
    return _reports.decode(body)
