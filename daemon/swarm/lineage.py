"""The lineage of certificates this node has verified: where the tips are, how to get from one to another.

Every certificate is verified before it is kept. One whose parent is unknown waits (a few do), and whoever brought it is asked for
the chain between. Of two tips that do not descend from each other the heavier one is followed (`protocol.certificate.prefer`).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from protocol.certificate import OpenCertificate, Tip, extend, genesis, open_certificate, prefer
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.manifest import Manifest

TIPS_KEPT = 512  # recent tips that a certificate may extend: a partition of 512 rounds can still be recognized
ORPHANS_KEPT = 32  # certificates whose parent is on its way


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A verified certificate and the tip it makes."""

    certificate: OpenCertificate
    tip: Tip


class Lineage:
    """The verified certificates of one run. Pure. `chunks` is the size of the run's model, None while (or where) it is not known."""

    def __init__(self, run: Digest, manifest: Manifest, chunks: int | None = None) -> None:
        self._run = run
        self._manifest = manifest
        self.chunks = chunks
        self.root = genesis(run)
        self.best = self.root
        self._steps: OrderedDict[Digest, Step] = OrderedDict()
        self._orphans: OrderedDict[Digest, OpenCertificate] = OrderedDict()

    def tip(self, name: Digest) -> Tip | None:
        """The tip of that name, when it is among those kept."""
        if name == self.root.hash:
            return self.root
        step = self._steps.get(name)
        return step.tip if step else None

    def step(self, name: Digest) -> Step | None:
        return self._steps.get(name)

    def add(self, raw: bytes, *, trusted: bool = False) -> list[Step]:
        """Verify a certificate and keep it. Returns what became part of the lineage: itself and orphans that waited for it.

        Empty when it was known, or waits for its parent. Raises `PeerFault`.
        """
        certificate = open_certificate(raw, self._run, self._manifest, self.chunks, trusted=trusted)
        if certificate.hash in self._steps or certificate.hash in self._orphans:
            return []
        parent = self.tip(certificate.outcome.parents[0])
        if parent is None:
            self._orphans[certificate.hash] = certificate
            while len(self._orphans) > ORPHANS_KEPT:
                self._orphans.popitem(last=False)
            return []
        added = [self._keep(certificate, parent)]
        while (child := self._orphan_of(added[-1].tip)) is not None:
            del self._orphans[child.hash]
            try:
                added.append(self._keep(child, added[-1].tip))
            except PeerFault:
                break  # it was well signed but does not follow from this parent; whoever holds a better one will send it
        return added

    @property
    def waiting(self) -> bool:
        """Whether a certificate waits for its parent."""
        return bool(self._orphans)

    def _orphan_of(self, tip: Tip) -> OpenCertificate | None:
        return next((orphan for orphan in self._orphans.values() if orphan.outcome.parents[0] == tip.hash), None)

    def _keep(self, certificate: OpenCertificate, parent: Tip) -> Step:
        step = Step(certificate=certificate, tip=extend(parent, certificate))
        self._steps[certificate.hash] = step
        while len(self._steps) > TIPS_KEPT:
            self._steps.popitem(last=False)
        self.best = step.tip if parent.hash == self.best.hash else prefer(self.best, step.tip)
        return step

    def path(self, old: Tip, new: Tip) -> list[OpenCertificate]:
        """The certificates of `new`'s ancestry that are not in `old`'s, oldest first, as far back as they are kept."""
        behind = {name.hash for name in self._ancestry(old)} | {old.hash}
        path: list[OpenCertificate] = []
        for tip in (new, *self._ancestry(new)):
            step = self._steps.get(tip.hash)
            if tip.hash in behind or step is None:
                break
            path.append(step.certificate)
        return path[::-1]

    def descends(self, new: Tip, old: Tip) -> bool:
        """Whether `old` is `new` or in its ancestry."""
        return new.hash == old.hash or any(tip.hash == old.hash for tip in self._ancestry(new))

    def _ancestry(self, tip: Tip) -> list[Tip]:
        ancestors: list[Tip] = []
        step = self._steps.get(tip.hash)
        while step is not None:
            parent = self.tip(step.certificate.outcome.parents[0])
            if parent is None:
                break
            ancestors.append(parent)
            step = self._steps.get(parent.hash)
        return ancestors
