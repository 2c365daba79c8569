"""The lineage of certificates this node has verified: where the tips are, how to get from one to another.

Every certificate is verified before it is kept. One whose parent is unknown waits (a few do), and whoever brought it is asked for
the chain between. Tips that do not descend from each other are branches; those who live on them merge them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cmp_to_key

import msgspec

from protocol.certificate import OpenCertificate, Tip, extend, genesis, merge, open_certificate, prefer
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.manifest import Manifest
from protocol.messages import task_of
from protocol.opened import OpenPlans

TIPS_KEPT = 512  # recent tips that a certificate may extend: a partition of 512 rounds can still be recognized
OTHER_TASK = "other_task"
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
        self.plans = OpenPlans(run, manifest)
        self.chunks = chunks
        self.refuses_task: Callable[[bytes], str] = lambda _: ""  # why the task with that name is not ours; nothing where it is
        self.root = genesis(run)
        self.best = self.root
        self._steps: OrderedDict[Digest, Step] = OrderedDict()
        self._orphans: OrderedDict[Digest, OpenCertificate] = OrderedDict()
        self._heads: dict[Digest, Tip] = {}

    def tip(self, name: Digest) -> Tip | None:
        """The tip of that name, when it is among those kept."""
        if name == self.root.hash:
            return self.root
        step = self._steps.get(name)
        return step.tip if step else None

    def step(self, name: Digest) -> Step | None:
        return self._steps.get(name)

    def add(self, raw: bytes, *, trusted: bool = False, of_any_task: bool = False) -> list[Step]:
        """Verify a certificate and keep it. Returns what became part of the lineage: itself and orphans that waited for it.

        Empty when it was known, or waits for a parent. Raises `PeerFault`; `PeerFault("other_task")` for one whose offers were made for another
        task than ours, unless it is `of_any_task` or on our own disk.
        """
        chunks = None if trusted else self.chunks  # what was verified once was verified for the model of then
        certificate = open_certificate(raw, self._run, self._manifest, chunks, trusted=trusted, plans=self.plans)
        if certificate.hash in self._steps or certificate.hash in self._orphans:
            return []
        if not trusted and not of_any_task:
            self._check_task(certificate)
        if not self._parents_known(certificate):
            self._orphans[certificate.hash] = certificate
            while len(self._orphans) > ORPHANS_KEPT:
                self._orphans.popitem(last=False)
            return []
        added = [self._keep(certificate, trusted=trusted)]
        while (child := next((orphan for orphan in self._orphans.values() if self._parents_known(orphan)), None)) is not None:
            del self._orphans[child.hash]
            try:
                added.append(self._keep(child))
            except PeerFault:
                continue  # well signed, but it does not follow from its parents: nobody can make it follow
        return added

    def _check_task(self, certificate: OpenCertificate) -> None:
        for offer in certificate.plan.offers:
            if why := self.refuses_task(task_of(offer)):
                raise PeerFault(OTHER_TASK, f"certificate {certificate.hash.hex()[:12]} was made with another task: {why}")

    @property
    def waiting(self) -> bool:
        """Whether a certificate waits for its parent."""
        return bool(self._orphans)

    def _parents_known(self, certificate: OpenCertificate) -> bool:
        return all(self.tip(parent) is not None for parent in certificate.outcome.parents)

    def _keep(self, certificate: OpenCertificate, *, trusted: bool = False) -> Step:
        parents = [tip for name in certificate.outcome.parents if (tip := self.tip(name)) is not None]
        if len(parents) == 2:
            made = merge(parents[0], parents[1], self.weights(parents[0], parents[1]), certificate, trusted=trusted)
        else:
            made = extend(parents[0], certificate, trusted=trusted)
        step = Step(certificate=certificate, tip=made)
        self._steps[certificate.hash] = step
        for parent in parents:
            self._heads.pop(parent.hash, None)
        self._heads[made.hash] = made
        while len(self._steps) > TIPS_KEPT:
            old, _ = self._steps.popitem(last=False)
            self._heads.pop(old, None)
        self.best = made if any(parent.hash == self.best.hash for parent in parents) else prefer(self.best, made)
        return step

    # ------------------------------------------------------------------------------------------ branches

    def path(self, old: Tip, new: Tip) -> list[OpenCertificate]:
        """The certificates of `new`'s ancestry that are not in `old`'s, parents before children, as far back as they are kept."""
        if (step := self._steps.get(new.hash)) is not None and step.certificate.outcome.parents == (old.hash,):
            return [step.certificate]  # the usual case, without walking
        behind = self._ancestry(old)
        ahead = [step for name, step in self._ancestry(new).items() if name not in behind]
        return [step.certificate for step in sorted(ahead, key=lambda step: (step.tip.number, step.tip.hash))]

    def weights(self, first: Tip, second: Tip) -> tuple[int, int]:
        """The samples certified on each of two branches since they parted."""
        one, two = self._ancestry(first), self._ancestry(second)
        return (
            sum(step.certificate.samples for name, step in one.items() if name not in two),
            sum(step.certificate.samples for name, step in two.items() if name not in one),
        )

    def descends(self, new: Tip, old: Tip) -> bool:
        """Whether `old` is `new` or in its ancestry."""
        return old.hash in (new.hash, self.root.hash) or old.hash in self._ancestry(new)

    def ahead(self, tip: Tip) -> Tip | None:
        """The branch to follow from `tip`: the preferred head that descends from it; None when there is none."""
        return next(iter(self.all_ahead(tip)), None)

    def all_ahead(self, tip: Tip) -> list[Tip]:
        """Heads that descend from `tip`, the preferred one first."""
        return self._ordered([head for head in self._heads.values() if head.hash != tip.hash and self.descends(head, tip)])

    def beside(self, tip: Tip) -> list[Tip]:
        """Heads of other branches: neither they nor `tip` descend from each other. The preferred one first."""
        return self._ordered([h for h in self._heads.values() if not self.descends(h, tip) and not self.descends(tip, h)])

    @staticmethod
    def _ordered(tips: list[Tip]) -> list[Tip]:
        return sorted(tips, key=cmp_to_key(lambda one, other: -1 if prefer(one, other) is one else 1))

    def _ancestry(self, tip: Tip) -> dict[Digest, Step]:
        """The kept certificates that led to `tip`, its own among them."""
        found: dict[Digest, Step] = {}
        open_ends = [tip.hash]
        while open_ends:
            step = self._steps.get(open_ends.pop())
            if step is not None and step.tip.hash not in found:
                found[step.tip.hash] = step
                open_ends.extend(step.certificate.outcome.parents)
        return found
