"""The exchange before the leader's inclusion: results of the contributions that a plan expects.

Pieces of results travel while parts still arrive, under the expectation that the inclusion will
name everyone. Where the inclusion differs, everything here is dropped. Plans of several groups have
no early exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from daemon.services.training.native.exchange.early_sum import EarlySum
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from daemon.services.training.native.exchange.result_pieces import ResultPieces
from protocol.averaging.inclusion import is_expected
from protocol.digest import Buffer
from protocol.messages.round import Inclusion
from protocol.planning.plan import OpenPlan


class EarlyExchange:
    """The pieces that this node makes and receives under one plan."""

    def __init__(self, plan: OpenPlan, context: ExchangeContext, ports: ExchangePorts) -> None:
        self._plan, self._ports = plan, ports
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

    def close(self) -> None:
        """Stop: the exchange of the plan is over."""
        self.pieces.close()
        if self._total is not None:
            self._total.close()
