"""The exchange before the leader's inclusion: results of the contributions that a plan expects.

Pieces of results travel while parts still arrive, under the expectation that the inclusion will
name everyone. The proof of a result follows its last piece: the expected inclusion follows from the
plan, so a reducer can sign its result for it. The proof counts only once the leader has signed that
inclusion. Where the inclusion differs, everything here is dropped. Plans of several groups have no
early exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from daemon.services.training.native.exchange.bulk_headers import ResultProofHeader
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, discard
from daemon.services.training.native.exchange.early_sum import EarlySum
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from daemon.services.training.native.exchange.result_exchange import ResultExchange
from daemon.services.training.native.exchange.result_pieces import ResultPieces
from protocol.averaging.inclusion import expected_inclusion, is_expected
from protocol.digest import Buffer, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import short
from protocol.messages.envelope import payload_of, sign
from protocol.messages.round import Inclusion, SliceResult
from protocol.planning.plan import OpenPlan
from protocol.rules.versions import RULES_2


class EarlyExchange:
    """The pieces that this node makes and receives under one plan."""

    def __init__(self, plan: OpenPlan, context: ExchangeContext, ports: ExchangePorts) -> None:
        self._plan, self._context, self._ports = plan, context, ports
        # Names the inclusion that this exchange expects.
        self.expected = digest(payload_of(expected_inclusion(plan)))
        # Whether this node has sent the proof of its result under that name.
        self.proved = False
        # By slice: the proofs that arrived before the inclusion.
        self._proofs: dict[int, tuple[ResultProofHeader, SliceResult]] = {}
        # Whether the plan's first inclusion has arrived.
        self._included = False
        self._me = plan.index[context.signer.peer]
        # The results, for the inclusion that this exchange expects.
        self._results = ResultBuffer(
            plan.layout, context.codec.result, context.parameters, ports.buffers
        )
        self.pieces = ResultPieces(plan, context, ports, self._results)
        # None for a member that sums nothing.
        self._total = (
            EarlySum(plan, context, ports, self._results) if plan.layout.sums(self._me) else None
        )

    def begin(self, own: Mapping[int, memoryview]) -> None:
        """Begin to sum, with this node's own part if it has one."""
        if self._total is not None:
            for member, part in own.items():
                self._total.note_arrival(member, part, len(part))
            self._ports.sender.start_soon(self._total.run)

    def arrivals_of(self, index: int, contributor: int) -> Callable[[memoryview, int], None] | None:
        """Return what notes the bytes of a part for member `index` as they arrive."""
        if self._total is None or index != self._me:
            return None
        return partial(self._total.note_arrival, contributor)

    def results_for(self, inclusion: Inclusion, *, first: bool) -> ResultBuffer | None:
        """Return the results that the pieces belong to, if they are of this inclusion.

        Drop all pieces otherwise. Only the `first` inclusion of a plan can be the expected one.
        """
        self._included = True
        if first and is_expected(inclusion, self._plan):
            return self._results
        self.pieces.close()
        if self._total is not None:
            self._total.withdraw()
        self._results.forget()
        return None

    async def total_of(self, index: int, parts: Mapping[int, Buffer]) -> EarlySum | None:
        """Return the sum of member `index`'s slice; None unless it is made of these parts."""
        if self._total is None or index != self._me or not await self._total.is_of(parts):
            return None
        return self._total

    async def prove(self, parts: Mapping[int, Buffer]) -> None:
        """Prove this node's result for the expected inclusion, made of these checked parts.

        Members of rules 2 may run a release that waits only a while for a proof's inclusion, and
        gives up the stream behind it: they get the proof after the inclusion.
        """
        total = await self.total_of(self._me, parts)
        if total is None or self._included or self._plan.rules <= RULES_2:
            return
        _, root, _ = total.outcome()
        result = SliceResult(
            plan=self._plan.digest, inclusion=self.expected, slice=self._me, root=root
        )
        total.send_proof(sign(self._context.signer, self._context.run, result))
        self.proved = True

    def expects(self, result: SliceResult) -> bool:
        """Whether a result is of the expected inclusion, which has not arrived."""
        return not self._included and result.inclusion == self.expected

    def accept_proof(self, header: ResultProofHeader, result: SliceResult) -> ExpectedParcel:
        """Keep a proof until the inclusion. Raises `PeerFault` unless its signer made the slice.

        Nothing waits for the inclusion here: on slow links, it comes long after the first proof.
        """
        members, signer = self._plan.members, header.result.peer
        if result.slice >= len(members) or members[result.slice] != signer:
            raise PeerFault("not_member", f"{short(signer)} does not own slice {result.slice}")
        self._proofs[result.slice] = (header, result)
        return ExpectedParcel(0, discard)

    async def use_proofs(self, results: ResultExchange) -> None:
        """Complete the results whose proofs came before the inclusion, if it is the expected."""
        if results.digest != self.expected:
            return
        for header, result in self._proofs.values():
            try:
                await results.accept_proof(header, result, self.pieces).finish(memoryview(b""))
            except PeerFault as fault:
                self._ports.refuse(fault.reason, header.result.peer, str(fault))
            except Unreachable:
                # The stream broke since. Pieces and proof come again on the next one.
                continue

    def close(self) -> None:
        """Stop: the exchange of the plan is over."""
        self.pieces.close()
        if self._total is not None:
            self._total.close()
