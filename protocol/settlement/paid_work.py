"""Which counted work of a run of rules 4 is paid, and how much of it.

Samples are claims, and keys are free. So an offer is paid for min(samples, 2h, 16m):

m   the lower median of the samples that the plan's voters offer
h   the lower median of the contributor's own last weights, for a round of this length

It is paid where its owner is a member, or becomes one within `ACCEPTED_WITHIN` certificates; then
it is paid in the epoch in which that happens. Nothing is paid while a majority of the voters is
against the owner. Of a branch that another one absorbed, as many certificates are paid as the
other branch made meanwhile: a private branch would otherwise mint work.

Runs of earlier rules pay what a certificate lists.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import msgspec

from protocol.averaging.weights import median_samples, usual_weight
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.next_tip import MergeSides, extend, merge, trust_rules
from protocol.certificates.tip import Tip, genesis_of, prefer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.facts import recorded_s
from protocol.membership.record import MembershipRecord
from protocol.membership.recovery import recovered_tip
from protocol.membership.role import Role, role_of
from protocol.messages.membership import Recovery
from protocol.messages.round import PacedPlan, TrustVote
from protocol.run.manifest import Manifest

ACCEPTED_WITHIN = 32
"""The certificates within which the owner of counted work must become a member to be paid.

As many as the membership record remembers: three audits of a newcomer come sooner.
"""

PAID_OWN_MEDIANS, PAID_MEDIANS = 2, 16
"""How many times its own usual weight, and the voters' median, an offer is paid for.

Weights have a tighter bound (`protocol/averaging/weights.py`). A card that is 16 times as fast as
the voters' is paid for what it does, and a claim of a million samples is not.
"""

WAITS = "its peer is not a member yet"
NEVER_ACCEPTED = f"its peer did not become a member within {ACCEPTED_WITHIN} certificates"
OPPOSED = "a majority of the voters was against its peer"
BEYOND = "the branch made more certificates than the one that absorbed it"


class Pay(msgspec.Struct, frozen=True, kw_only=True):
    """What one counted offer is paid for, and where; `unpaid` says why it is not."""

    samples: int = 0
    # The index of the epoch that pays.
    epoch: int = 0
    unpaid: str = ""


TIPS_KEPT = 256
"""The tips that are kept, for merges: a branch of more certificates merges as if it began later."""


class _Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one certificate may pay, by index of the contributor in the plan."""

    epoch: int
    bounded: Mapping[int, int]
    opposed: frozenset[int]


class PaidWork:
    """Decides the pay of a lineage's certificates, each of which must follow its parents."""

    def __init__(
        self,
        run: Digest,
        manifest: Manifest,
        recoveries: Mapping[Digest, Recovery] = MappingProxyType({}),
    ) -> None:
        """`recoveries` are the owner's, by name."""
        self._run, self._manifest, self._recoveries = run, manifest, recoveries
        self._bases = {recovery.tip for recovery in recoveries.values()}
        self._tips: OrderedDict[Digest, Tip] = OrderedDict({run: genesis_of(run, manifest)})
        self._parents: dict[Digest, tuple[Digest, ...]] = {run: ()}
        self._samples: dict[Digest, tuple[int, int]] = {run: (0, 0)}
        self._counted: dict[Digest, _Counted] = {}
        self._beyond: set[Digest] = set()
        # The ends of branches, whose tips are never forgotten.
        self._heads: set[Digest] = {run}
        # The number of the last certificate that counts a peer's work, for recent ones.
        self._recent: dict[PeerId, int] = {}
        # By peer: the (number, epoch) of certificates after which it is a member.
        self._accepted: dict[PeerId, list[tuple[int, int]]] = {}
        self._last = 0

    def follow(self, certificate: OpenCertificate, epoch: int) -> None:
        """Add a certificate that this node verified before; parents come before children.

        Args:
            certificate: the certificate.
            epoch: the index of the epoch that holds it.
        """
        trust, parents = trust_rules(self._run, self._manifest), certificate.outcome.parents
        for parent in parents:
            self._recover(parent)
        before = [self._tips[parent] for parent in parents]
        number = certificate.outcome.number
        self._parents[certificate.hash] = parents
        self._samples[certificate.hash] = (number, certificate.samples)
        if len(before) == 1:
            made = extend(before[0], certificate, trusted=True, trust=trust)
            self._counted[certificate.hash] = self._count(before[0], made, certificate, epoch)
        else:
            above = [self._above(parent) for parent in parents]
            common = above[0] & above[1]
            known = [self._tips[name] for name in common if name in self._tips]
            ancestor = max(known, key=lambda tip: tip.number, default=before[0])
            sides = [above[0] - common, above[1] - common]
            weights = [sum(self._samples[name][1] for name in side) for side in sides]
            made = merge(
                before[0],
                before[1],
                (weights[0], weights[1]),
                certificate,
                trusted=True,
                trust=trust,
                sides=MergeSides(ancestor=ancestor, preferred=_preferred(before, certificate)),
            )
            self._bound(made, parents, sides)
        self._tips[made.hash] = made
        self._heads = (self._heads - {*parents}) | {made.hash}
        old = [name for name in self._tips if name not in self._heads | self._bases]
        for name in old[: max(0, len(self._tips) - TIPS_KEPT)]:
            del self._tips[name]
        self._last = max(self._last, number)
        for index in certificate.inclusion.contributors:
            self._recent[certificate.plan.members[index]] = number
        record = _record(made)
        for peer, listed in list(self._recent.items()):
            if listed < number - ACCEPTED_WITHIN:
                del self._recent[peer]
            elif self._is_member(record, peer):
                self._accepted.setdefault(peer, []).append((number, epoch))

    def _recover(self, name: Digest) -> None:
        """Add the tip of the owner's recovery, where `name` is one and its certificate is known."""
        recovery = self._recoveries.get(name)
        if recovery is None or name in self._tips or recovery.tip not in self._tips:
            return
        self._tips[name] = recovered_tip(self._tips[recovery.tip], name, recovery)
        self._parents[name] = (recovery.tip,)
        self._samples[name] = (recovery.number, 0)

    def knows(self, parents: Iterable[Digest]) -> bool:
        """Whether a certificate with these parents may follow."""
        for parent in parents:
            self._recover(parent)
        return all(parent in self._tips for parent in parents)

    def _above(self, name: Digest) -> set[Digest]:
        """Return a certificate and all before it."""
        seen, waiting = {name}, [name]
        while waiting:
            fresh = [each for each in self._parents[waiting.pop()] if each not in seen]
            seen.update(fresh)
            waiting += fresh
        return seen

    def _bound(self, made: Tip, parents: tuple[Digest, ...], sides: list[set[Digest]]) -> None:
        """Note which certificates of the absorbed branch are beyond what is paid."""
        record = _record(made)
        # The record continues the preferred branch, and ends with the merge itself.
        absorbed = 1 if len(record.tips) < 2 or record.tips[-2] == parents[0] else 0
        branch = sorted(sides[absorbed], key=lambda name: (self._samples[name][0], name))
        self._beyond.update(branch[len(sides[1 - absorbed]) :])

    def _count(self, before: Tip, made: Tip, certificate: OpenCertificate, epoch: int) -> _Counted:
        """Bound the work of a certificate by min(samples, 2h, 16m)."""
        plan, old, new = certificate.plan, _record(before), _record(made)
        members = range(len(plan.members))
        median = median_samples(
            [offer.samples for offer in plan.offers],
            [i for i in members if plan.members[i] in old.voters],
            [i for i in members if not self._is_member(new, plan.members[i])],
        )
        assert isinstance(plan.plan, PacedPlan), "plans of rules 4 are paced"
        round_s = recorded_s(plan.plan, self._manifest)
        bounded: dict[int, int] = {}
        for i in certificate.inclusion.contributors:
            peer, most = plan.members[i], PAID_MEDIANS * median
            own = [(one.weights[peer], one.round_s) for one in old.recent if one.weights.get(peer)]
            usual = usual_weight(own, round_s)
            if usual is not None:
                most = min(most, math.floor(PAID_OWN_MEDIANS * usual))
            bounded[i] = min(plan.offers[i].samples, most)
        opposed = [i for i in bounded if 2 * new.speaks_against(plan.members[i]) > len(new.voters)]
        return _Counted(epoch=epoch, bounded=bounded, opposed=frozenset(opposed))

    def pay(self, certificate: OpenCertificate, index: int) -> Pay:
        """Return the pay of the contributor `index` of a plan for one certificate."""
        counted = self._counted.get(certificate.hash)
        if counted is None:
            # A merge counts no work.
            return Pay()
        peer, number = certificate.plan.members[index], certificate.outcome.number
        if certificate.hash in self._beyond:
            return Pay(epoch=counted.epoch, unpaid=BEYOND)
        if index in counted.opposed:
            return Pay(epoch=counted.epoch, unpaid=OPPOSED)
        pays = [
            paying
            for accepted, paying in self._accepted.get(peer, ())
            if number <= accepted <= number + ACCEPTED_WITHIN
        ]
        if not pays:
            waits = self._last < number + ACCEPTED_WITHIN
            return Pay(epoch=counted.epoch, unpaid=WAITS if waits else NEVER_ACCEPTED)
        return Pay(samples=counted.bounded[index], epoch=max(counted.epoch, min(pays)))

    def _is_member(self, record: MembershipRecord, peer: PeerId) -> bool:
        return role_of(record, self._manifest, peer) is not Role.NEWCOMER


def _preferred(parents: Sequence[Tip], certificate: OpenCertificate) -> Tip:
    """Return the parent whose record the votes for a merge name: that branch absorbs the other."""
    outcome = certificate.outcome
    assert isinstance(outcome, TrustVote), "votes of rules 4 name a record"
    named = (tip for tip in parents if _record(tip).digest == outcome.record)
    return next(named, prefer(parents[0], parents[1]))


def _record(tip: Tip) -> MembershipRecord:
    assert tip.record is not None, "every tip of rules 4 has a record"
    return tip.record


PayRule = Callable[[Mapping[Digest, OpenCertificate], Mapping[Digest, int]], PaidWork]
"""Makes the pay of a lineage from all certificates by hash, and the epoch of each counted one."""


def paid_work(
    run: Digest,
    manifest: Manifest,
    certificates: Mapping[Digest, OpenCertificate],
    epoch_of: Mapping[Digest, int],
    recoveries: Mapping[Digest, Recovery] = MappingProxyType({}),
) -> PaidWork:
    """Return the pay of a lineage. `epoch_of` has the epoch of each of its certificates."""
    paid = PaidWork(run, manifest, recoveries)
    for name in sorted(epoch_of, key=lambda name: (certificates[name].outcome.number, name)):
        paid.follow(certificates[name], epoch_of[name])
    return paid


def pay_rule(
    run: Digest,
    manifest: Manifest,
    recoveries: Mapping[Digest, Recovery] = MappingProxyType({}),
) -> PayRule | None:
    """Return how a run pays; None where it pays all that a certificate lists."""
    if trust_rules(run, manifest) is None:
        return None
    return partial(paid_work, run, manifest, recoveries=recoveries)
