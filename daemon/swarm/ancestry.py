"""The graph of verified certificates: which one descends from which. Pure.

A forgotten certificate leaves a bridge: the tip of this node from which it descends. Without the
bridge, a node that was away for long would see the later certificates as another branch.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.digest import Digest

# Bridges of forgotten certificates. Of each branch the newest counts.
BRIDGES_KEPT = 256


class LineageEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A verified certificate and the tip it makes."""

    certificate: OpenCertificate
    tip: Tip
    # Under rules 4, the parent of a merge that absorbed the other one.
    preferred: Digest | None = None


class Ancestry:
    """The kept entries by name, and the walks along their parents."""

    def __init__(self, root: Digest) -> None:
        """`root` names the tip from which every certificate of the run descends."""
        self._root = root
        self._entries: OrderedDict[Digest, LineageEntry] = OrderedDict()
        self._bridges: OrderedDict[Digest, Digest] = OrderedDict()
        # By name of the owner's recovery: the certificate that the run goes on from.
        self._recoveries: dict[Digest, Digest] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def entry(self, name: Digest) -> LineageEntry | None:
        return self._entries.get(name)

    def add(self, entry: LineageEntry) -> None:
        self._entries[entry.tip.hash] = entry

    def recover(self, name: Digest, certificate: Digest) -> None:
        """Let the name of an owner's recovery descend from a certificate."""
        self._recoveries[name] = certificate

    def forget(self, name: Digest, adopted: Tip | None) -> None:
        """Drop an entry. A bridge stays if the entry descends from the adopted tip."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        own = adopted.hash if adopted is not None else None
        origins = [
            own if parent == own else self._bridges.get(parent)
            for parent in entry.certificate.outcome.parents
        ]
        origin = next((one for one in origins if one is not None), None)
        if origin is not None:
            self._bridges[entry.tip.hash] = origin
            while len(self._bridges) > BRIDGES_KEPT:
                self._bridges.popitem(last=False)

    def of(self, tip: Tip) -> dict[Digest, LineageEntry]:
        """The kept entries that led to `tip`, with the entry that made it."""
        found: dict[Digest, LineageEntry] = {}
        open_ends = [tip.hash, *self._before_recovery(tip.hash)]
        while open_ends:
            entry = self._entries.get(open_ends.pop())
            if entry is not None and entry.tip.hash not in found:
                found[entry.tip.hash] = entry
                for parent in entry.certificate.outcome.parents:
                    open_ends += (parent, *self._before_recovery(parent))
        return found

    def _before_recovery(self, name: Digest) -> tuple[Digest, ...]:
        before = self._recoveries.get(name)
        return (before,) if before is not None else ()

    def path(self, old: Tip, new: Tip) -> list[OpenCertificate]:
        """The certificates that lead from `old` to `new`, parents before children.

        They are the certificates in `new`'s ancestry that are not in `old`'s, as far back as they
        are kept.
        """
        entry = self._entries.get(new.hash)
        if entry is not None and entry.certificate.outcome.parents == (old.hash,):
            # This is the usual case, and needs no walk.
            return [entry.certificate]
        behind = self.of(old)
        ahead = [entry for name, entry in self.of(new).items() if name not in behind]
        ahead.sort(key=lambda entry: (entry.tip.number, entry.tip.hash))
        return [entry.certificate for entry in ahead]

    def weights(self, first: Tip, second: Tip) -> tuple[int, int]:
        """The samples certified on each of two branches since they parted."""
        one, two = self.of(first), self.of(second)
        return (
            sum(entry.certificate.samples for name, entry in one.items() if name not in two),
            sum(entry.certificate.samples for name, entry in two.items() if name not in one),
        )

    def common(self, first: Tip, second: Tip) -> set[Digest]:
        """The names that both tips descend from, as far back as certificates are kept."""
        return self._reached(first) & self._reached(second)

    def main_line(self, tip: Tip) -> list[Digest]:
        """The names from `tip` back along the branches that absorbed others, the newest first.

        What a merge absorbed is in the ancestry of a tip and not on its main line.
        """
        names = [tip.hash]
        while True:
            entry = self._entries.get(names[-1])
            if entry is not None:
                names.append(entry.preferred or entry.certificate.outcome.parents[0])
            elif names[-1] in self._recoveries:
                names.append(self._recoveries[names[-1]])
            else:
                return names

    def _reached(self, tip: Tip) -> set[Digest]:
        entries = self.of(tip)
        parents = (
            parent for entry in entries.values() for parent in entry.certificate.outcome.parents
        )
        names = {tip.hash, *entries, *parents}
        return names.union(*(self._before_recovery(name) for name in names))

    def descends(self, new: Tip, old: Tip) -> bool:
        """Whether `old` is `new` or in its ancestry.

        The walk ends at `old`'s number, since strangers may bring a thousand heads.
        """
        if old.hash in (new.hash, self._root):
            return True
        open_ends, seen = [new.hash], set()
        while open_ends:
            name = open_ends.pop()
            if name == old.hash:
                return True
            entry = self._entries.get(name)
            if name in seen or (entry is not None and entry.tip.number <= old.number):
                continue
            seen.add(name)
            if entry is not None:
                open_ends.extend(entry.certificate.outcome.parents)
            elif (origin := self._recoveries.get(name, self._bridges.get(name))) is not None:
                open_ends.append(origin)
        return False
