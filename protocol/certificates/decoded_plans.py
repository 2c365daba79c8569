"""A cache of plans that were checked.

A plan arrives once by itself, and again inside every copy of its certificate. Opening a plan means
checking its offers' signatures and planning again: 1 ms among four members, 30 ms among 64. Without
the cache, that was a tenth of a round's control.
"""

from __future__ import annotations

from protocol.digest import Digest
from protocol.membership.record import MembershipRecord
from protocol.messages.base import Signed
from protocol.planning.plan import OpenPlan, open_plan, read_plan
from protocol.run.manifest import Manifest

# A round has one plan, or two where a view failed; a plan of 64 members takes 100 KB.
PLANS_KEPT = 4


class DecodedPlans:
    """The last plans of one run that this node opened.

    A plan that was refused is checked again each time.
    """

    def __init__(self, run: Digest, manifest: Manifest) -> None:
        self._run, self._manifest = run, manifest
        self._kept: dict[tuple[Signed, int | None], OpenPlan] = {}
        # The kept plans that were made again from their offers.
        self._made_again: set[tuple[Signed, int | None]] = set()

    def open(
        self, signed: Signed, chunks: int | None, record: MembershipRecord | None = None
    ) -> OpenPlan:
        """Open a plan that this node will carry out; see `open_plan`. Raises `PeerFault`.

        A plan has one parent, and so one `record`.
        """
        if (signed, chunks) not in self._made_again:
            opened = open_plan(signed, self._run, self._manifest, chunks, record)
            self._keep(signed, chunks, opened)
            self._made_again.add((signed, chunks))
        return self._kept[signed, chunks]

    def read(self, signed: Signed, chunks: int | None, *, trusted: bool = False) -> OpenPlan:
        """Read the plan of a certificate; see `read_plan`. Raises `PeerFault`."""
        if trusted:
            return read_plan(signed, self._run, self._manifest, chunks, trusted=True)
        known = self._kept.get((signed, chunks))
        return known or self._keep(
            signed, chunks, read_plan(signed, self._run, self._manifest, chunks)
        )

    def _keep(self, signed: Signed, chunks: int | None, plan: OpenPlan) -> OpenPlan:
        self._kept[signed, chunks] = plan
        while len(self._kept) > PLANS_KEPT:
            forgotten = next(iter(self._kept))
            del self._kept[forgotten]
            self._made_again.discard(forgotten)
        return plan
