"""Subclasses hivemind's averager and all-reduce, to return what hivemind counts of a round.

Stock hivemind returns the group that was formed, even when members failed. A reducer that failed
leaves local values in its slice. A sender that failed is missing from a sum. In both cases the step
succeeds. hivemind counts both; these subclasses return the counts. The bytes on the wire are the
same. The subclasses override private methods, so hivemind's version is pinned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import torch
from hivemind.averaging import allreduce
from hivemind.averaging.averager import DecentralizedAverager
from hivemind.averaging.group_info import GroupInfo
from hivemind.dht import DHT
from hivemind.utils.asyncio import as_aiter, azip

from daemon.children.parent_death import die_with_parent

Moment = str
"""A point in a member's all-reduce. In order:

"scatter": the member begins to send. "reduce": the first part from another member has arrived.
"gather": the first part of its own slice is summed. "whole": its result is complete, and it has
summed all parts of its slice.
"""

MOMENTS: tuple[Moment, ...] = ("scatter", "reduce", "gather", "whole")

OnMoment = Callable[[Moment], None]
"""Called in the averager's process, once for each moment of a round, before the next byte moves."""


def ignore_moment(moment: Moment) -> None:
    """Do nothing."""


class ObservedDHT(DHT):
    """hivemind's DHT, in a forked process that ends with its parent."""

    def __init__(self, **given: Any) -> None:
        self._forked_by = os.getpid()
        super().__init__(**given)

    def run(self) -> None:
        die_with_parent(self._forked_by)
        super().run()


class ObservedRunner(allreduce.AllReduceRunner):
    """One all-reduce that reports its moments."""

    def __init__(self, *, on_moment: OnMoment, **given: Any) -> None:
        super().__init__(**given)
        self._on_moment = on_moment
        self._reached: set[Moment] = set()
        reducer, keep = self.tensor_part_reducer, self.tensor_part_reducer.reset_accumulators

        def summed() -> None:
            keep()
            self._reach("gather")

        reducer.reset_accumulators = summed

    def _reach(self, moment: Moment) -> None:
        if moment not in self._reached:
            self._reached.add(moment)
            self._on_moment(moment)

    async def _generate_input_for_peer(self, peer_index: int) -> Any:
        self._reach("scatter")
        async for message in super()._generate_input_for_peer(peer_index):
            yield message

    async def _accumulate_parts_streaming(self, stream: Any, sender_index: int) -> Any:
        async def watched() -> Any:
            async for message in stream:
                self._reach("reduce")
                yield message

        async for message in super()._accumulate_parts_streaming(watched(), sender_index):
            yield message

    def reach_whole(self) -> None:
        """Report that the member's result is complete."""
        self._reach("whole")


class ObservedAverager(DecentralizedAverager):
    """An averager whose step returns what hivemind counted, as a dict of plain values.

    `averager.AllReduceOutcome` describes the values.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        dht: DHT,
        *,
        on_moment: OnMoment = ignore_moment,
        **given: Any,
    ) -> None:
        self._on_moment = on_moment
        self._forked_by = os.getpid()
        self._shared: tuple[int, Sequence[torch.Tensor]] = (0, ())
        super().__init__(tensors, dht, **given)

    def run(self) -> None:
        die_with_parent(self._forked_by)
        super().run()

    def aim_at(self, group_size: int) -> None:
        """Set the size at which a group starts at once, from the next matchmaking on."""
        self._outer_pipe.send(("_aim_at", [], {"group_size": group_size}))

    async def _aim_at(self, group_size: int) -> None:
        self._matchmaking.target_group_size = group_size
        self._matchmaking.potential_leaders.target_group_size = group_size

    def share_state(self, number: int, tensors: Sequence[torch.Tensor]) -> None:
        """Set the state that other peers download. hivemind asks the highest number first."""
        self._shared = (number, tensors)
        self.allow_state_sharing = True
        self.state_sharing_priority = float(number)

    def get_current_state(self) -> tuple[Any, Sequence[torch.Tensor], None]:
        """Return the shared state. hivemind calls this in a thread of this process."""
        number, tensors = self._shared
        return {"number": number}, tensors, None

    async def _aggregate_with_group(
        self, group_info: GroupInfo, min_vector_size: int, **given: Any
    ) -> dict[str, Any]:
        began = monotonic()
        gathered = await super()._aggregate_with_group(group_info, min_vector_size, **given)
        runner = self._running_groups[group_info.group_id].result()
        sums, parts = runner.tensor_part_reducer, runner.tensor_part_container
        return {
            "gathered": {peer.to_base58(): data for peer, data in gathered.items()},
            "local_elements": int(parts.failed_size),
            "elements": int(parts.total_size),
            "missing_senders": [peer.to_base58() for peer in runner.banned_senders],
            "parts_expected": sums.num_parts * sums.num_senders,
            "parts_summed": sum(sums.num_parts_received),
            "seconds": monotonic() - began,
        }

    async def _run_allreduce_inplace_(
        self,
        tensors: Sequence[torch.Tensor],
        group_info: GroupInfo,
        group_id: bytes | None = None,
        **given: Any,
    ) -> None:
        runner = ObservedRunner(
            on_moment=self._on_moment,
            p2p=self._p2p,
            servicer_type=type(self),
            prefix=self.prefix,
            tensors=tensors,
            group_id=group_info.group_id if group_id is None else group_id,
            ordered_peer_ids=group_info.peer_ids,
            **given,
        )
        self._running_groups[runner.group_id].set_result(runner)
        # The same as the overridden method does for members that both send and sum. This program
        # makes no auxiliary or client-mode members.
        async for tensor, update in azip(as_aiter(*tensors), runner):
            runner.reach_whole()
            tensor.add_(update, alpha=self._averaging_alpha)


# The names of hivemind's remote procedures contain the class's name. Stock averagers call them by
# this name.
ObservedAverager.__name__ = DecentralizedAverager.__name__
