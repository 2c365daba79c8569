"""The lineage of certificates this node has verified: where the tips are, how to get from one to
another.

Every certificate is verified before it is kept. One whose parent is unknown waits (a few do), and
whoever brought it is asked for the chain between. Tips that do not descend from each other are
branches; those who live on them merge them.

Strangers can certify whatever they like among keys of their own. So what is kept has owners: the
ancestry of what this node stands on (`stand`) is its own, and nothing that comes in takes its
place. Everything else belongs to whoever brought it, and each of them has a share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cmp_to_key

import msgspec

from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.certificates.tip import Tip, extend, genesis, merge, prefer
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.messages.offer import task_of
from protocol.run.manifest import Manifest

# Of our own ancestry, and of what one peer gave when it was asked: a partition of 512 rounds can
# still be recognized.
TIPS_KEPT = 512
OTHERS_KEPT = 1024  # certificates of all others
# Of them, told unasked: each head among them is looked at again and again.
TOLD_KEPT = 256
# Of one peer, that it told of unasked: a branch's last, which is merged or asked for.
TOLD_BY_ONE = 32
# Behind a source's name, for what it gave when it was asked.
ASKED = " asked"
OTHER_TASK = "other_task"
BRIDGES_KEPT = 256  # of each branch the newest counts
ORPHANS_KEPT = 32  # certificates whose parent is on its way
ORPHANS_OF_ONE = 8  # of one peer


class LineageEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A verified certificate and the tip it makes."""

    certificate: OpenCertificate
    tip: Tip


class Lineage:
    """The verified certificates of one run.

    Pure. `chunks` is the size of the run's model, None while (or where) it is not known.
    """

    def __init__(self, run: Digest, manifest: Manifest, chunks: int | None = None) -> None:
        self._run = run
        self._manifest = manifest
        self.plans = DecodedPlans(run, manifest)
        self.chunks = chunks
        # Why the task with that name is not ours; nothing where it is.
        self.refuses_task: Callable[[bytes], str] = lambda _: ""
        self.root = genesis(run)
        self.best = self.root
        self._standing: Tip | None = None
        self._front: Tip | None = None  # None when it must be looked for anew
        self._steps: OrderedDict[Digest, LineageEntry] = OrderedDict()
        self._own: OrderedDict[Digest, None] = OrderedDict()
        self._shares: dict[str, OrderedDict[Digest, None]] = {}  # by whose word, the oldest first
        self._orphans: OrderedDict[Digest, tuple[OpenCertificate, str, bool]] = OrderedDict()
        self._heads: dict[Digest, Tip] = {}
        # Certificates that were forgotten on the way from a place where this node stood: from
        # which. A node that was away for longer than is kept would take what the others certified
        # meanwhile for another branch.
        self._bridges: OrderedDict[Digest, Digest] = OrderedDict()

    def tip(self, name: Digest) -> Tip | None:
        """The tip of that name, when it is among those kept."""
        if name == self.root.hash:
            return self.root
        if self._standing is not None and name == self._standing.hash:
            return self._standing
        step = self._steps.get(name)
        return step.tip if step else None

    def step(self, name: Digest) -> LineageEntry | None:
        return self._steps.get(name)

    @property
    def front(self) -> Tip:
        """Where to ask others from: the head that this node follows; without a place of its own (an
        observer's) the preferred one.
        """
        if self._standing is None:
            return self.best
        if self._front is None:
            self._front = self.ahead(self._standing) or self._standing
        return self._front

    def stand(self, tip: Tip) -> None:
        """This node stands on `tip`: its ancestry is kept whatever others bring."""
        self._standing, self._front = tip, None
        for name, _ in sorted(self._ancestry(tip).items(), key=lambda item: item[1].tip.number):
            if name not in self._own:
                self._own[name] = None
                for share in self._shares.values():
                    share.pop(name, None)
        while len(self._own) > TIPS_KEPT:
            self._forget(next(iter(self._own)))
        self._shares = {source: share for source, share in self._shares.items() if share}

    def add(
        self,
        raw: bytes,
        *,
        trusted: bool = False,
        of_any_task: bool = False,
        source: str = "",
        asked: bool = False,
    ) -> list[LineageEntry]:
        """Verify a certificate that `source` brought and keep it.

        Returns what became part of the lineage: itself and orphans that waited for it.

        `asked` when it came as an answer, which may be long. Empty when it was known, or waits for
        a parent. Raises `PeerFault`; `PeerFault("other_task")` for one whose offers were made for
        another task than ours, unless it is `of_any_task` or on our own disk.
        """
        # What was verified once was verified for the model of then.
        chunks = None if trusted else self.chunks
        certificate = open_certificate(
            raw, self._run, self._manifest, chunks, trusted=trusted, plans=self.plans
        )
        if certificate.hash in self._steps or certificate.hash in self._orphans:
            return []
        if not trusted and not of_any_task:
            self._check_task(certificate)
        if not self._parents_known(certificate):
            self._wait(certificate, source, asked)
            return []
        added = [self._keep(certificate, source, asked, trusted=trusted)]
        while (
            waiting := next(
                (one for one in self._orphans.values() if self._parents_known(one[0])), None
            )
        ) is not None:
            del self._orphans[waiting[0].hash]
            try:
                added.append(self._keep(*waiting))
            except PeerFault:
                # Well signed, but it does not follow from its parents: nobody can make it follow.
                continue
        return added

    def _check_task(self, certificate: OpenCertificate) -> None:
        for offer in certificate.plan.offers:
            if why := self.refuses_task(task_of(offer)):
                raise PeerFault(
                    OTHER_TASK,
                    f"certificate {certificate.hash.hex()[:12]} was made with another task: {why}",
                )

    @property
    def waiting(self) -> bool:
        """Whether a certificate waits for its parent."""
        return bool(self._orphans)

    def _wait(self, certificate: OpenCertificate, source: str, asked: bool) -> None:
        self._orphans[certificate.hash] = (certificate, source, asked)
        of_one = [name for name, (_, by, _) in self._orphans.items() if by == source]
        if len(of_one) > ORPHANS_OF_ONE:
            del self._orphans[of_one[0]]
        while len(self._orphans) > ORPHANS_KEPT:
            self._orphans.popitem(last=False)

    def _parents_known(self, certificate: OpenCertificate) -> bool:
        return all(self.tip(parent) is not None for parent in certificate.outcome.parents)

    def _keep(
        self, certificate: OpenCertificate, source: str, asked: bool, *, trusted: bool = False
    ) -> LineageEntry:
        parents = [
            tip for name in certificate.outcome.parents if (tip := self.tip(name)) is not None
        ]
        if len(parents) == 2:
            made = merge(
                parents[0],
                parents[1],
                self.weights(parents[0], parents[1]),
                certificate,
                trusted=trusted,
            )
        else:
            made = extend(parents[0], certificate, trusted=trusted)
        step = LineageEntry(certificate=certificate, tip=made)
        self._steps[certificate.hash] = step
        for parent in parents:
            self._heads.pop(parent.hash, None)
        self._heads[made.hash] = made
        self._front = None
        self.best = (
            made
            if any(parent.hash == self.best.hash for parent in parents)
            else prefer(self.best, made)
        )
        self._charge(made.hash, source, asked)
        return step

    def _charge(self, name: Digest, source: str, asked: bool) -> None:
        """Count a certificate among its source's; where it or all have too many, the oldest of the
        one with most goes.
        """
        account = source + ASKED if asked else source
        share = self._shares.setdefault(account, OrderedDict())
        share[name] = None
        if len(share) > (TIPS_KEPT if asked or not source else TOLD_BY_ONE):
            self._forget(next(iter(share)))
        told = [kept for by, kept in self._shares.items() if by and not by.endswith(ASKED)]
        if sum(map(len, told)) > TOLD_KEPT:
            self._forget(_oldest_of_the_largest(told))
        if sum(map(len, self._shares.values())) > OTHERS_KEPT:
            self._forget(_oldest_of_the_largest(self._shares.values()))

    def _forget(self, name: Digest) -> None:
        self._front = None
        if (step := self._steps.pop(name, None)) is not None:
            self._bridge(step)
        self._heads.pop(name, None)
        self._own.pop(name, None)
        for account, share in list(self._shares.items()):
            if name in share:
                del share[name]
                if not share:
                    del self._shares[account]
        if name == self.best.hash:
            self.best = (
                next(iter(self._ordered(list(self._heads.values()))), None)
                or self._standing
                or self.root
            )

    def _bridge(self, step: LineageEntry) -> None:
        """`step` is forgotten.

        What descends from it descends from where this node stands, if that led to it.
        """
        standing = self._standing.hash if self._standing is not None else None
        origins = [
            standing if parent == standing else self._bridges.get(parent)
            for parent in step.certificate.outcome.parents
        ]
        origin = next((one for one in origins if one is not None), None)
        if origin is not None:
            self._bridges[step.tip.hash] = origin
            while len(self._bridges) > BRIDGES_KEPT:
                self._bridges.popitem(last=False)

    # ------------------------------------------------------------------------------------------ branches

    def path(self, old: Tip, new: Tip) -> list[OpenCertificate]:
        """The certificates of `new`'s ancestry that are not in `old`'s, parents before children, as
        far back as they are kept.
        """
        if (step := self._steps.get(new.hash)) is not None and step.certificate.outcome.parents == (
            old.hash,
        ):
            return [step.certificate]  # the usual case, without walking
        behind = self._ancestry(old)
        ahead = [step for name, step in self._ancestry(new).items() if name not in behind]
        return [
            step.certificate
            for step in sorted(ahead, key=lambda step: (step.tip.number, step.tip.hash))
        ]

    def weights(self, first: Tip, second: Tip) -> tuple[int, int]:
        """The samples certified on each of two branches since they parted."""
        one, two = self._ancestry(first), self._ancestry(second)
        return (
            sum(step.certificate.samples for name, step in one.items() if name not in two),
            sum(step.certificate.samples for name, step in two.items() if name not in one),
        )

    def descends(self, new: Tip, old: Tip) -> bool:
        """Whether `old` is `new` or in its ancestry.

        Walks back no further than `old`: strangers may bring a thousand heads.
        """
        if old.hash in (new.hash, self.root.hash):
            return True
        open_ends, seen = [new.hash], set()
        while open_ends:
            name = open_ends.pop()
            if name == old.hash:
                return True
            step = self._steps.get(name)
            if name in seen or (step is not None and step.tip.number <= old.number):
                continue
            seen.add(name)
            if step is not None:
                open_ends.extend(step.certificate.outcome.parents)
            elif (origin := self._bridges.get(name)) is not None:
                open_ends.append(origin)
        return False

    def ahead(self, tip: Tip) -> Tip | None:
        """The branch to follow from `tip`: the preferred head that descends from it; None when
        there is none.
        """
        return next(iter(self.all_ahead(tip)), None)

    def all_ahead(self, tip: Tip) -> list[Tip]:
        """Heads that descend from `tip`, the preferred one first."""
        return self._ordered(
            [
                head
                for head in self._heads.values()
                if head.hash != tip.hash and self.descends(head, tip)
            ]
        )

    def beside(self, tip: Tip, held: Callable[[Tip], bool] = lambda _: True) -> list[Tip]:
        """Heads of other branches that are `held`: neither they nor `tip` descend from each other.

        The preferred one first.
        """
        others = [
            h
            for h in self._heads.values()
            if held(h) and not self.descends(h, tip) and not self.descends(tip, h)
        ]
        return self._ordered(others)

    @staticmethod
    def _ordered(tips: list[Tip]) -> list[Tip]:
        return sorted(tips, key=cmp_to_key(_compare))

    def _ancestry(self, tip: Tip) -> dict[Digest, LineageEntry]:
        """The kept certificates that led to `tip`, its own among them."""
        found: dict[Digest, LineageEntry] = {}
        open_ends = [tip.hash]
        while open_ends:
            step = self._steps.get(open_ends.pop())
            if step is not None and step.tip.hash not in found:
                found[step.tip.hash] = step
                open_ends.extend(step.certificate.outcome.parents)
        return found


def _compare(a: Tip, b: Tip) -> int:
    """Order tips as `sorted` wants it: the preferred one first."""
    if a is b:
        return 0
    return -1 if prefer(a, b) is a else 1


def _oldest_of_the_largest(shares: Iterable[OrderedDict[Digest, None]]) -> Digest:
    """Name what has to go when the certificates that others brought are too many."""
    largest = max(shares, key=lambda share: len(share))  # noqa: PLW0108  # mypy needs the type
    return next(iter(largest))
