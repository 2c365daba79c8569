"""The lineage: the certificates that this node has verified, and how to get from one to another.

Every certificate is verified before it is kept. A few certificates whose parent is unknown wait,
and the peer that brought one is asked for the chain between. Tips that do not descend from each
other are branches, and the nodes on them merge them.

Strangers can certify anything among keys of their own. So the ancestry of the tip that this node
follows (`adopt`) is its own, and nothing that arrives replaces it. Every other certificate belongs
to the peer that brought it, and each peer has a share (`certificate_shares.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from daemon.swarm import certificate_shares
from daemon.swarm.ancestry import Ancestry, LineageEntry
from daemon.swarm.branch_order import BranchOrder
from daemon.swarm.certificate_shares import CertificateShares
from daemon.swarm.forks import Forks
from daemon.swarm.orphans import Orphan, Orphans
from daemon.swarm.recoveries import Recoveries
from daemon.swarm.required_certificate import RequiredCertificate
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.certificates.next_tip import extend, merge, trust_rules
from protocol.certificates.tip import Tip, genesis_of
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.messages.membership import Recovery
from protocol.messages.offer import task_of
from protocol.run.manifest import Manifest

OTHER_TASK = "other_task"


class Lineage:
    """The verified certificates of one run. Pure."""

    def __init__(self, run: Digest, manifest: Manifest, chunks: int | None = None) -> None:
        """`chunks` is the size of the run's model, None while it is unknown."""
        self._run = run
        self._manifest = manifest
        self.plans = DecodedPlans(run, manifest)
        self.chunks = chunks
        # Says why the task with a name is not ours; empty for ours.
        self.refuses_task: Callable[[bytes], str] = lambda _: ""
        self.root = genesis_of(run, manifest)
        self._trust = trust_rules(run, manifest)
        self.best = self.root
        self._adopted: Tip | None = None
        # None when the front must be computed anew.
        self._front: Tip | None = None
        self._ancestry = Ancestry(self.root.hash)
        self.forks = Forks(run, manifest, self._ancestry, self.tip, self.root)
        self.recoveries = Recoveries(run, self._ancestry, self.tip)
        self._order = BranchOrder(manifest.rules, self._ancestry, self.forks, self.recoveries)
        self._own: OrderedDict[Digest, None] = OrderedDict()
        self._shares = CertificateShares(self._forget)
        self._orphans = Orphans()
        self._heads: dict[Digest, Tip] = {}
        self._required = RequiredCertificate()
        # The beginning of the hash of the certificate that this node's owner follows, in hex.
        self.followed = ""

    def require(self, certificate: Digest | None) -> None:
        """Follow no history without this certificate. Call this before any certificate is added.

        None, and the run's genesis, require nothing.
        """
        self._required.require(None if certificate == self.root.hash else certificate)

    @property
    def missing_required(self) -> Digest | None:
        """The required certificate, where certificates are known and none of them leads there."""
        return self._required.missing if self._heads else None

    def _is_permitted(self, head: Tip) -> bool:
        if not self._required.leads_to(head):
            return False
        recovered = self.recoveries.newest
        return recovered is None or self.descends(head, recovered)

    def tip(self, name: Digest) -> Tip | None:
        """The tip with that name; None when it is not kept."""
        if name == self.root.hash:
            return self.root
        if self._adopted is not None and name == self._adopted.hash:
            return self._adopted
        entry = self._ancestry.entry(name)
        return entry.tip if entry else self.recoveries.tip(name)

    def recover(self, recovery: Recovery) -> None:
        """Go on from where the run's owner says. Of several recoveries the highest serial counts.

        Earlier ones stay known: certificates after them name them as parents.
        """
        if self.recoveries.add(recovery):
            self._front = None

    def follows(self, tip: Tip) -> bool:
        """Whether `tip` is on the branch that this node's owner follows."""
        if not self.followed:
            return False
        names = {tip.hash, *self._ancestry.of(tip)}
        return any(name.hex().startswith(self.followed) for name in names)

    def entry(self, name: Digest) -> LineageEntry | None:
        return self._ancestry.entry(name)

    @property
    def front(self) -> Tip:
        """The head from which to ask others for more.

        It is the head that this node follows. An observer follows none and uses the preferred one.
        """
        if self._adopted is None:
            return self.best
        if self._front is None:
            ahead = self._descendants(self._adopted)
            self._front = next(iter(ahead), self._adopted)
        return self._front

    def adopt(self, tip: Tip) -> None:
        """Follow `tip` from now on: its ancestry is kept, whatever others bring."""
        self._adopted, self._front = tip, None
        if tip.number:
            # Later heads descend from a history that was permitted, or that this node made.
            self._required.require(None)
        for name, _ in sorted(self._ancestry.of(tip).items(), key=lambda item: item[1].tip.number):
            if name not in self._own:
                self._own[name] = None
                self._shares.discard(name)
        while len(self._own) > certificate_shares.TIPS_KEPT:
            self._forget(next(iter(self._own)))

    def add(
        self,
        raw: bytes,
        *,
        trusted: bool = False,
        of_any_task: bool = False,
        source: str = "",
        asked: bool = False,
    ) -> list[LineageEntry]:
        """Verify and keep a certificate.

        Args:
            trusted: The certificate is from our own disk and was verified before.
            of_any_task: Accept a certificate whose offers were made for another task than ours.
            source: The peer that brought it; empty for our own.
            asked: The certificate came in an answer, which may be long.

        Returns:
            The entries that became part of the lineage: this one and orphans that waited for it.
            The list is empty when the certificate was known, or waits for a parent.

        Raises:
            PeerFault: When it does not verify; "other_task" when only its task differs.
        """
        # A trusted certificate was verified for the model of its time.
        chunks = None if trusted else self.chunks
        certificate = open_certificate(
            raw, self._run, self._manifest, chunks, trusted=trusted, plans=self.plans
        )
        if certificate.hash in self._ancestry or certificate.hash in self._orphans:
            return []
        if not trusted and not of_any_task:
            self._check_task(certificate)
        if not self._parents_known(certificate):
            self._orphans.add(Orphan(certificate=certificate, source=source, asked=asked))
            return []
        added = [self._keep(certificate, source, asked, trusted=trusted)]
        while (orphan := self._orphans.pop_ready(self._parents_known)) is not None:
            try:
                added.append(self._keep(orphan.certificate, orphan.source, orphan.asked))
            except PeerFault:
                # It is well signed but does not follow from its parents, and never will.
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
    def kept(self) -> int:
        """How many certificates are kept, without those that wait for a parent."""
        return len(self._ancestry)

    @property
    def waiting(self) -> int:
        """How many certificates wait for a parent."""
        return len(self._orphans)

    def _parents_known(self, certificate: OpenCertificate) -> bool:
        return all(self.tip(parent) is not None for parent in certificate.outcome.parents)

    def _keep(
        self, certificate: OpenCertificate, source: str, asked: bool, *, trusted: bool = False
    ) -> LineageEntry:
        parents = [
            tip for name in certificate.outcome.parents if (tip := self.tip(name)) is not None
        ]
        preferred: Digest | None = None
        if len(parents) == 2:
            sides = self.forks.sides(parents[0], parents[1]) if self._trust else None
            preferred = sides.preferred.hash if sides is not None else None
            made = merge(
                parents[0],
                parents[1],
                self.weights(parents[0], parents[1]),
                certificate,
                trusted=trusted,
                trust=self._trust,
                sides=sides,
            )
        else:
            made = extend(parents[0], certificate, trusted=trusted, trust=self._trust)
        entry = LineageEntry(certificate=certificate, tip=made, preferred=preferred)
        self._required.note(made, parents)
        self._ancestry.add(entry)
        for parent in parents:
            self._heads.pop(parent.hash, None)
        self._heads[made.hash] = made
        self._front = None
        self.best = (
            made
            if any(parent.hash == self.best.hash for parent in parents)
            else self._order.prefer(self.best, made)
        )
        self._shares.charge(made.hash, source, asked)
        return entry

    def _forget(self, name: Digest) -> None:
        self._front = None
        self._required.forget(name)
        self._ancestry.forget(name, self._adopted)
        self._heads.pop(name, None)
        self._own.pop(name, None)
        self._shares.discard(name)
        if name == self.best.hash:
            self.best = (
                next(iter(self._order.sorted(list(self._heads.values()))), None)
                or self._adopted
                or self.root
            )

    # ---------------------------------------------------------------------------------- branches

    def path(self, old: Tip, new: Tip) -> list[OpenCertificate]:
        """The certificates that lead from `old` to `new`, parents before children."""
        return self._ancestry.path(old, new)

    def weights(self, first: Tip, second: Tip) -> tuple[int, int]:
        """The samples certified on each of two branches since they parted."""
        return self._ancestry.weights(first, second)

    def descends(self, new: Tip, old: Tip) -> bool:
        """Whether `old` is `new` or in its ancestry."""
        return self._ancestry.descends(new, old)

    def preferred_descendant(self, tip: Tip) -> Tip | None:
        """The preferred head that descends from `tip`, which is the one to follow; or None."""
        return next(iter(self.descendants(tip)), None)

    def descendants(self, tip: Tip) -> list[Tip]:
        """Heads that descend from `tip` and may be followed, the preferred one first."""
        return [head for head in self._descendants(tip) if self._is_permitted(head)]

    def _descendants(self, tip: Tip) -> list[Tip]:
        return self._order.sorted(
            [
                head
                for head in self._heads.values()
                if head.hash != tip.hash and self.descends(head, tip)
            ]
        )

    def other_branches(self, tip: Tip, held: Callable[[Tip], bool] = lambda _: True) -> list[Tip]:
        """Heads of other branches than `tip`'s that are `held`, the preferred one first.

        Neither such a head nor `tip` descends from the other.
        """
        others = [
            h
            for h in self._heads.values()
            if held(h)
            and self._is_permitted(h)
            and not self.descends(h, tip)
            and not self.descends(tip, h)
        ]
        return self._order.sorted(others)
