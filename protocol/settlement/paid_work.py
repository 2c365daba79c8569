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
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from protocol.averaging.weights import median_samples, usual_weight
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip, extend, genesis_of, merge, trust_rules
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.facts import recorded_s
from protocol.membership.record import MembershipRecord
from protocol.membership.role import Role, role_of
from protocol.messages.round import PacedPlan
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


class PaidWork:
    """Decides the pay of a lineage's certificates. All of them must be there, from genesis on."""

    def __init__(
        self,
        run: Digest,
        manifest: Manifest,
        certificates: Mapping[Digest, OpenCertificate],
        epoch_of: Mapping[Digest, int],
    ) -> None:
        """`epoch_of` has the epoch of each certificate of the lineage, and no other certificate."""
        self._manifest, self._epoch_of = manifest, epoch_of
        self._known = {name: certificates[name] for name in epoch_of}
        self._tips: dict[Digest, Tip] = {run: genesis_of(run, manifest)}
        self._ancestors: dict[Digest, frozenset[Digest]] = {run: frozenset({run})}
        self._beyond: set[Digest] = set()
        self._order = sorted(
            self._known.values(), key=lambda each: (each.outcome.number, each.hash)
        )
        for certificate in self._order:
            self._follow(run, certificate)
        self._last = max((tip.number for tip in self._tips.values()), default=0)
        self._accepted: dict[PeerId, list[tuple[int, int]]] = {}

    def _follow(self, run: Digest, certificate: OpenCertificate) -> None:
        """Compute the tip after a certificate, which this node verified before."""
        trust, parents = trust_rules(run, self._manifest), certificate.outcome.parents
        before = [self._tips[parent] for parent in parents]
        above = [self._ancestors[parent] for parent in parents]
        if len(before) == 1:
            made = extend(before[0], certificate, trusted=True, trust=trust)
        else:
            common = above[0] & above[1]
            ancestor = max((self._tips[name] for name in common), key=lambda tip: tip.number)
            sides = [above[0] - common, above[1] - common]
            weights = [sum(self._known[name].samples for name in side) for side in sides]
            made = merge(
                before[0],
                before[1],
                (weights[0], weights[1]),
                certificate,
                trusted=True,
                trust=trust,
                ancestor=ancestor,
            )
            self._bound(made, parents, sides)
        self._tips[made.hash] = made
        self._ancestors[made.hash] = frozenset().union(*above, {made.hash})

    def _bound(
        self, made: Tip, parents: tuple[Digest, ...], sides: list[frozenset[Digest]]
    ) -> None:
        """Note which certificates of the absorbed branch are beyond what is paid."""
        record = _record(made)
        # The record continues the preferred branch, and ends with the merge itself.
        absorbed = 1 if len(record.tips) < 2 or record.tips[-2] == parents[0] else 0
        branch = sorted(sides[absorbed], key=lambda name: (self._tips[name].number, name))
        self._beyond.update(branch[len(sides[1 - absorbed]) :])

    def pay(self, certificate: OpenCertificate, index: int) -> Pay:
        """Return the pay of the contributor `index` of a plan for one certificate."""
        plan, epoch = certificate.plan, self._epoch_of[certificate.hash]
        peer, number = plan.members[index], certificate.outcome.number
        after = _record(self._tips[certificate.hash])
        if certificate.hash in self._beyond:
            return Pay(epoch=epoch, unpaid=BEYOND)
        if 2 * after.speaks_against(peer) > len(after.voters):
            return Pay(epoch=epoch, unpaid=OPPOSED)
        pays = [
            paying
            for accepted, paying in self._acceptances(peer)
            if number <= accepted <= number + ACCEPTED_WITHIN
        ]
        if not pays:
            waits = self._last < number + ACCEPTED_WITHIN
            return Pay(epoch=epoch, unpaid=WAITS if waits else NEVER_ACCEPTED)
        return Pay(samples=self._bounded(certificate, index), epoch=max(epoch, min(pays)))

    def _acceptances(self, peer: PeerId) -> list[tuple[int, int]]:
        """The (number, epoch) of each certificate after which the peer is a member."""
        if peer not in self._accepted:
            self._accepted[peer] = [
                (each.outcome.number, self._epoch_of[each.hash])
                for each in self._order
                if self._is_member(_record(self._tips[each.hash]), peer)
            ]
        return self._accepted[peer]

    def _is_member(self, record: MembershipRecord, peer: PeerId) -> bool:
        return role_of(record, self._manifest, peer) is not Role.NEWCOMER

    def _bounded(self, certificate: OpenCertificate, index: int) -> int:
        """Return min(samples, 2h, 16m)."""
        plan = certificate.plan
        before = _record(self._tips[certificate.outcome.parents[0]])
        after = _record(self._tips[certificate.hash])
        members = range(len(plan.members))
        median = median_samples(
            [offer.samples for offer in plan.offers],
            [i for i in members if plan.members[i] in before.voters],
            [i for i in members if not self._is_member(after, plan.members[i])],
        )
        peer, most = plan.members[index], PAID_MEDIANS * median
        assert isinstance(plan.plan, PacedPlan), "plans of rules 4 are paced"
        own = [
            (each.weights[peer], each.round_s) for each in before.recent if each.weights.get(peer)
        ]
        usual = usual_weight(own, recorded_s(plan.plan, self._manifest))
        if usual is not None:
            most = min(most, math.floor(PAID_OWN_MEDIANS * usual))
        return min(plan.offers[index].samples, most)


def _record(tip: Tip) -> MembershipRecord:
    assert tip.record is not None, "every tip of rules 4 has a record"
    return tip.record


PayRule = Callable[[Mapping[Digest, OpenCertificate], Mapping[Digest, int]], PaidWork]
"""Makes the pay of a lineage from all certificates by hash, and the epoch of each counted one."""


def pay_rule(run: Digest, manifest: Manifest) -> PayRule | None:
    """Return how a run pays; None where it pays all that a certificate lists."""
    return partial(PaidWork, run, manifest) if trust_rules(run, manifest) is not None else None
