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
from functools import cmp_to_key

from daemon.swarm import certificate_shares
from daemon.swarm.ancestry import Ancestry, LineageEntry
from daemon.swarm.certificate_shares import CertificateShares
from daemon.swarm.forks import Forks
from daemon.swarm.orphans import Orphan, Orphans
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.certificates.next_tip import MergeSides, extend, merge, trust_rules
from protocol.certificates.tip import Tip, genesis_of, prefer
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.membership.branch_merge import MergeShare, merge_share
from protocol.membership.recovery import recovered_tip, recovery_name
from protocol.membership.standing import standing
from protocol.messages.membership import Recovery
from protocol.messages.offer import task_of
from protocol.rules.registry import rules_of
from protocol.rules.versions import RULES_4
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
        self.forks = Forks(run, manifest, self._ancestry, self.tip)
        self._own: OrderedDict[Digest, None] = OrderedDict()
        self._shares = CertificateShares(self._forget)
        self._orphans = Orphans()
        self._heads: dict[Digest, Tip] = {}
        # The certificate that the history must contain, until this node follows one with it.
        self._required: Digest | None = None
        # The beginning of the hash of the certificate that this node's owner follows, in hex.
        self.followed = ""
        # The owner's recoveries, by name.
        self._recoveries: dict[Digest, Recovery] = {}
        self._recovered: dict[Digest, Tip] = {}
        self._with_required: set[Digest] = set()

    def require(self, certificate: Digest | None) -> None:
        """Follow no history without this certificate. Call this before any certificate is added.

        None, and the run's genesis, require nothing.
        """
        self._required = None if certificate == self.root.hash else certificate

    @property
    def missing_required(self) -> Digest | None:
        """The required certificate, where certificates are known and none of them leads there."""
        if self._required is None or not self._heads or self._with_required:
            return None
        return self._required

    def _is_permitted(self, head: Tip) -> bool:
        if self._required is not None and head.hash not in self._with_required:
            return False
        recovered = self.recovered
        return recovered is None or self.descends(head, recovered)

    def tip(self, name: Digest) -> Tip | None:
        """The tip with that name; None when it is not kept."""
        if name == self.root.hash:
            return self.root
        if self._adopted is not None and name == self._adopted.hash:
            return self._adopted
        entry = self._ancestry.entry(name)
        return entry.tip if entry else self._recovered_tip(name)

    def _recovered_tip(self, name: Digest) -> Tip | None:
        if name in self._recovered:
            return self._recovered[name]
        recovery = self._recoveries.get(name)
        before = self.tip(recovery.tip) if recovery is not None else None
        if recovery is None or before is None:
            return None
        self._recovered[name] = recovered_tip(before, name, recovery)
        return self._recovered[name]

    def recover(self, recovery: Recovery) -> None:
        """Go on from where the run's owner says. Of several recoveries the highest serial counts.

        Earlier ones stay known: certificates after them name them as parents.
        """
        name = recovery_name(self._run, recovery)
        if name in self._recoveries:
            return
        self._recoveries[name] = recovery
        self._ancestry.recover(name, recovery.tip)
        self._front = None

    @property
    def recovered(self) -> Tip | None:
        """The tip of the recovery that counts, where its certificate is known."""
        newest = max(self._recoveries.items(), key=lambda item: item[1].serial, default=None)
        return self._recovered_tip(newest[0]) if newest is not None else None

    def follows(self, tip: Tip) -> bool:
        """Whether `tip` is on the branch that this node's owner follows."""
        if not self.followed:
            return False
        names = {tip.hash, *self._ancestry.of(tip)}
        return any(name.hex().startswith(self.followed) for name in names)

    def recovery_base(self, name: Digest) -> Tip | None:
        """The tip of the certificate that a recovery goes on from."""
        recovery = self._recoveries.get(name)
        return self.tip(recovery.tip) if recovery is not None else None

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
            self._required = None
            self._with_required.clear()
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
            sides = self.sides(parents[0], parents[1]) if self._trust else None
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
        if self._required is not None and (
            made.hash == self._required
            or any(parent.hash in self._with_required for parent in parents)
        ):
            self._with_required.add(made.hash)
        self._ancestry.add(entry)
        for parent in parents:
            self._heads.pop(parent.hash, None)
        self._heads[made.hash] = made
        self._front = None
        self.best = (
            made
            if any(parent.hash == self.best.hash for parent in parents)
            else self.prefer(self.best, made)
        )
        self._shares.charge(made.hash, source, asked)
        return entry

    def _forget(self, name: Digest) -> None:
        self._front = None
        self._with_required.discard(name)
        self._ancestry.forget(name, self._adopted)
        self._heads.pop(name, None)
        self._own.pop(name, None)
        self._shares.discard(name)
        if name == self.best.hash:
            self.best = (
                next(iter(self._ordered(list(self._heads.values()))), None)
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

    def sides(self, first: Tip, second: Tip) -> MergeSides:
        """Which of two branches absorbs the other in a merge of rules 4."""
        fork = self.forks.of(first, second)
        if fork is None:
            return MergeSides(ancestor=self.root, preferred=prefer(first, second))
        ours, theirs = (standing(branch, fork.voters) for branch in (fork.first, fork.second))
        preferred = self.forks.prefer(first, second)
        stood = min(ours, theirs, key=len) if len(ours) != len(theirs) else frozenset()
        return MergeSides(ancestor=fork.ancestor, preferred=preferred, stood=tuple(sorted(stood)))

    def has_absorbed(self, other: Tip, tip: Tip) -> bool:
        """Whether the branch of `other` merged a part of the branch of `tip`."""
        main = set(self._ancestry.main_line(other))
        own = {name for name in self._ancestry.main_line(tip) if name not in main}
        return not own.isdisjoint(self._ancestry.of(other))

    def merge_share(self, preferred: Tip, other: Tip) -> MergeShare:
        """How far the merge of `other` into `preferred` moves the state, under rules 4."""
        fork = self.forks.of(preferred, other)
        if fork is None:
            return MergeShare(sigma=0.0, limit=0.0, compared=0)
        outer = rules_of(self._manifest).outer_at(self._manifest, preferred.samples)
        return merge_share(fork.first, fork.second, fork.voters, outer)

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
        return self._ordered(
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
        return self._ordered(others)

    def prefer(self, first: Tip, second: Tip) -> Tip:
        """The preferred one of two tips on different branches.

        A branch that follows the owner's recovery comes before one that does not.
        """
        recovered = self.recovered
        if recovered is not None:
            one, two = self.descends(first, recovered), self.descends(second, recovered)
            if one != two:
                return first if one else second
        return (prefer if self._manifest.rules < RULES_4 else self.forks.prefer)(first, second)

    def _ordered(self, tips: list[Tip]) -> list[Tip]:
        def compare(first: Tip, second: Tip) -> int:
            return 0 if first is second else -1 if self.prefer(first, second) is first else 1

        return sorted(tips, key=cmp_to_key(compare))
