"""Reputation: how reliably a peer's work was certified lately, for eligibility and for display.

Reputation decides no payment.

    figure  certified rounds that counted the peer's work, per 1,000 rounds certified since it
            appeared, over the last 7 days
    gate    the figure is 0 for a peer that was present in fewer than a fifth of the hours in which
            the run certified
    alert   more samples in the last hour than twice the mean of the last 24: the machine grew, or
            it cheats
    pool    high-performance, standard or basic, by the peer's certified samples per round against
            the median peer's. Its peers measure this.

Reputation is each node's own view, from the certificates that it saw and when it saw them:
certificates carry no time. A (peer, seq) counts once, however many branches list it, as it is paid
once. Counts are kept by the hour, so a week of any peer is 168 small counts, whatever the length of
a round.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping

import msgspec

from protocol.identity import PeerId

HOUR_S = 3600.0
WINDOW_HOURS = 7 * 24
DAY_HOURS = 24
UPTIME_GATE = 0.2
JUMP = 2.0
MIN_ROUNDS = 5
"""Rounds that must be certified after a peer appeared, before it has a figure."""

KEPT_PEERS = 4096
"""As many as a status shows. Keys are free, so the peer unseen for longest is dropped."""

KEPT_KEYS = 65_536
"""Counted offers that are remembered. Branches meet within 512 rounds, and a plan has 64 members.
"""

HIGH, LOW = 2.0, 0.5
"""Multiples of the median peer's pace that bound the standard pool."""


Key = tuple[PeerId, int]
"""A counted offer: its peer and its seq."""


class Reputation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one peer. `figure` is 0 to 1,000, or None before `MIN_ROUNDS`."""

    figure: int | None
    uptime: float
    pool: str
    alert: str = ""


UNKNOWN = Reputation(figure=None, uptime=0.0, pool="")


class _Hour(msgspec.Struct):
    counted: int = 0
    samples: int = 0


class _Peer:
    """One peer's hours and their sums."""

    def __init__(self) -> None:
        self.hours: OrderedDict[int, _Hour] = OrderedDict()
        self.counted = 0
        self.samples = 0

    def saw(self, hour: int, samples: int) -> None:
        entry = self.hours.setdefault(hour, _Hour())
        entry.counted += 1
        entry.samples += samples
        self.counted += 1
        self.samples += samples
        for old in _outside(self.hours, hour):
            gone = self.hours.pop(old)
            self.counted -= gone.counted
            self.samples -= gone.samples

    @property
    def pace(self) -> float:
        """Certified samples in a round that counted the peer."""
        return self.samples / self.counted if self.counted else 0.0


class Reputations:
    """The run's peers as this node saw them.

    Certificates are added in the order in which they were seen. The size is bounded whatever the
    clock does.
    """

    def __init__(self) -> None:
        # The certified rounds by hour.
        self._rounds: OrderedDict[int, int] = OrderedDict()
        self._peers: OrderedDict[PeerId, _Peer] = OrderedDict()
        self._median: float | None = None
        self._keys: OrderedDict[Key, None] = OrderedDict()
        self._numbers: OrderedDict[int, None] = OrderedDict()

    def saw(self, at_s: float, number: int, samples_of: Mapping[Key, int]) -> None:
        """Count a certificate.

        A certificate without a new offer (a merge, or one seen before) changes nothing. Two
        branches that certify one round number make one round: no peer can be in both.

        Args:
            at_s: when this node saw the certificate, unix seconds.
            number: the certificate's round.
            samples_of: samples of each counted (peer, seq).
        """
        fresh = {key: samples for key, samples in samples_of.items() if key not in self._keys}
        if not fresh:
            return
        hour = int(at_s // HOUR_S)
        self._median = None
        self._rounds[hour] = self._rounds.get(hour, 0) + (number not in self._numbers)
        self._numbers[number] = None
        for old in _outside(self._rounds, hour):
            del self._rounds[old]
        for (peer, seq), samples in fresh.items():
            self._peers.setdefault(peer, _Peer()).saw(hour, samples)
            self._peers.move_to_end(peer)
            self._keys[peer, seq] = None
        for kept in (self._keys, self._numbers):
            while len(kept) > KEPT_KEYS:
                kept.popitem(last=False)
        while len(self._peers) > KEPT_PEERS:
            self._peers.popitem(last=False)

    def of(self, peer: PeerId, at_s: float) -> Reputation:
        """Return what is known of a peer now."""
        hour, known = int(at_s // HOUR_S), self._peers.get(peer)
        hours = (
            {one: entry for one, entry in known.hours.items() if hour - WINDOW_HOURS < one <= hour}
            if known
            else {}
        )
        if known is None or not hours:
            return UNKNOWN
        first = min(hours)
        run = [count for one, count in self._rounds.items() if first <= one <= hour]
        certified = sum(run)
        uptime = min(1.0, len(hours) / max(len(run), 1))
        counted = sum(entry.counted for entry in hours.values())
        figure = (
            None
            if certified < MIN_ROUNDS
            else 0
            if uptime < UPTIME_GATE
            else min(1000, 1000 * counted // certified)
        )
        return Reputation(
            figure=figure, uptime=uptime, pool=self._pool(known), alert=_jump(hours, hour)
        )

    def _pool(self, peer: _Peer) -> str:
        if self._median is None:
            paces = sorted(one.pace for one in self._peers.values())
            self._median = paces[len(paces) // 2]
        return (
            "high-performance"
            if peer.pace >= HIGH * self._median
            else "basic"
            if peer.pace <= LOW * self._median
            else "standard"
        )


def _outside(hours: OrderedDict[int, _Hour] | OrderedDict[int, int], hour: int) -> list[int]:
    """Return the hours that are older than the window.

    If a clock that jumps made more hours than the window holds, the first ones are among them.
    """
    old = [known for known in hours if known <= hour - WINDOW_HOURS]
    more = max(0, len(hours) - len(old) - WINDOW_HOURS)
    return old + [known for known in hours if known not in old][:more]


def _jump(hours: Mapping[int, _Hour], hour: int) -> str:
    """Return a sentence if the last hour is above twice the mean of the day before."""
    before: defaultdict[int, int] = defaultdict(int)
    for known, entry in hours.items():
        if hour - DAY_HOURS <= known < hour:
            before[known] += entry.samples
    now = hours[hour].samples if hour in hours else 0
    mean = sum(before.values()) / len(before) if before else 0.0
    return (
        f"{now:,} samples in this hour; {mean:,.0f} were usual in the last day"
        if before and now > JUMP * mean
        else ""
    )
