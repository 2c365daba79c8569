"""Values computed from what was read of real processes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from protocol.identity import PeerId
from protocol.journal import PeerDown, PeerForgotten, decode_event
from protocol.status import RoundSummary

# A line of /proc/PID/smaps_rollup (proc(5)): the process's own memory and its share of memory that
# several processes map.
_PSS = re.compile(rb"^Pss:\s+(\d+) kB$", re.MULTILINE)
KIB = 1024


def pss_bytes(smaps_rollup: bytes) -> int:
    """The proportional set size of a process, from the text of its `smaps_rollup`.

    Raises:
        ValueError: The text has no such line.
    """
    found = _PSS.search(smaps_rollup)
    if found is None:
        raise ValueError("no line Pss in smaps_rollup")
    return int(found.group(1)) * KIB


def whole_rounds(rounds: Iterable[RoundSummary], members: int) -> list[RoundSummary]:
    """The certified rounds from the first that counts all members on, in order."""
    certified = sorted((one for one in rounds if one.certificate), key=lambda one: one.number)
    first = next(
        (i for i, one in enumerate(certified) if len(one.contributors) == members), len(certified)
    )
    return certified[first:]


def samples_per_s(rounds: Sequence[RoundSummary]) -> float:
    """Certified samples over the time that they took, exchange included.

    The first round only begins the time.

    Raises:
        ValueError: There are fewer than two rounds, or no time passed.
    """
    if len(rounds) < 2 or rounds[-1].at <= rounds[0].at:
        raise ValueError(f"{len(rounds)} certified rounds span no time")
    return sum(one.samples for one in rounds[1:]) / (rounds[-1].at - rounds[0].at)


def noticed_at(journal: bytes, peer: PeerId, since: float) -> float | None:
    """When a node first knew that it lost `peer`, in unix seconds; None while it does not know.

    Args:
        journal: the lines of its journal. An unfinished last line is left out.
        peer: the lost peer.
        since: earlier losses do not count (unix seconds).
    """
    for line in journal.split(b"\n")[:-1]:
        if peer.encode() not in line:
            continue
        event = decode_event(line)
        if isinstance(event, PeerDown | PeerForgotten) and event.peer == peer and event.at >= since:
            return event.at
    return None


def detection_s(noticed: Mapping[str, float | None], killed_at: float) -> float | None:
    """Seconds until the last survivor knew of the loss; None while one does not know."""
    times = [at for at in noticed.values() if at is not None]
    return max(times) - killed_at if times and len(times) == len(noticed) else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
