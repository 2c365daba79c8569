"""Averages one vector with a group of hivemind peers, and times matchmaking and all-reduce apart.

hivemind's success proves nothing: `AllReduceOutcome` holds what it counted. `hivemind_peer` shows
how to use this module.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import hivemind
import msgspec
import numpy as np
import torch
from hivemind import compression as codecs
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.utils.timed_storage import get_dht_time

from daemon.services.training.hivemind.observed_averager import (
    ObservedAverager,
    OnMoment,
)
from daemon.services.training.hivemind.settings import AveragerSettings
from protocol.averaging.vector_layout import Vector

CODECS: dict[str, type[codecs.CompressionBase]] = {
    "none": codecs.NoCompression,
    "float16": codecs.Float16Compression,
    "scaled_float16": codecs.ScaledFloat16Compression,
    "uniform8": codecs.Uniform8BitQuantization,
    "quantile8": codecs.Quantile8BitQuantization,
    "blockwise8": codecs.BlockwiseQuantization,
}

# For another peer's state. After that, the next round asks again.
DOWNLOAD_S = 60.0
# Between looks at the stage of an attempt, a byte of shared memory.
POLL_S = 0.002


class AveragingFailed(Exception):
    """hivemind found no group, or the round failed. The vector's content is undefined."""


class AllReduceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A round that hivemind reports as a success, from the view of one member.

    A member does not know what other reducers left out of their sums.
    """

    # The hivemind ids of the group that was formed. Some members may have failed since.
    group: tuple[str, ...]
    # What each member gave to `begin`, by its id.
    gathered: dict[str, Any]
    elements: int
    # The number of elements that hold this member's own values, because a reducer failed.
    local_elements: int
    # The members whose values are missing in a part of the slice that this member summed.
    missing_senders: tuple[str, ...]
    # The parts of this member's slice.
    parts_expected: int
    parts_summed: int
    # From the trigger to the result, measured by the caller.
    all_reduce_s: float
    # Measured inside the averager's process, without the calls between processes.
    inside_s: float

    @property
    def whole(self) -> bool:
        """Whether every value of every member was averaged, as far as this member sees."""
        return (
            not self.local_elements
            and not self.missing_senders
            and self.parts_summed == self.parts_expected
        )


class AveragingAttempt:
    """One round, from matchmaking to its result."""

    def __init__(self, control: StepControl) -> None:
        self._control = control
        self._began = time.monotonic()

    def wait_for_group(self, timeout_s: float) -> float:
        """Wait until a group is formed. Returns the seconds of matchmaking.

        Raises `AveragingFailed`, which ends the attempt.
        """
        deadline = self._began + timeout_s
        while self._control.stage is not AveragingStage.AWAITING_TRIGGER:
            if self._control.done():
                raise AveragingFailed(f"no group: {self._control.exception()!r}")
            if time.monotonic() > deadline:
                self.cancel()
                raise AveragingFailed(f"no group within {timeout_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - self._began

    def average(self) -> AllReduceOutcome:
        """Start the all-reduce and wait for its result. Raises `AveragingFailed`."""
        began = time.monotonic()
        self._control.allow_allreduce()
        try:
            counted = self._control.result()
        except BaseException as error:
            # The other process's future carries every exception, including a cancellation.
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise AveragingFailed(str(error) or repr(error)) from None
        return AllReduceOutcome(
            group=tuple(counted["gathered"]),
            gathered=counted["gathered"],
            elements=counted["elements"],
            local_elements=counted["local_elements"],
            missing_senders=tuple(counted["missing_senders"]),
            parts_expected=counted["parts_expected"],
            parts_summed=counted["parts_summed"],
            all_reduce_s=time.monotonic() - began,
            inside_s=counted["seconds"],
        )

    def cancel(self) -> None:
        """Abandon the round."""
        if not self._control.done():
            self._control.cancel()


class VectorAverager:
    """Averages one vector, in a process that hivemind forks.

    The vector lives in anonymous memory that both processes share.
    """

    def __init__(
        self, dht: hivemind.DHT, elements: int, settings: AveragerSettings, on_moment: OnMoment
    ) -> None:
        self._tensor = torch.zeros(elements, dtype=torch.float32)
        self._averager = ObservedAverager(
            [self._tensor],
            dht,
            on_moment=on_moment,
            start=True,
            prefix=settings.prefix,
            compression=CODECS[settings.compression](),
            target_group_size=settings.group_size,
            min_group_size=settings.min_group_size,
            min_matchmaking_time=settings.matchmaking_s,
            request_timeout=settings.request_s,
            sender_timeout=settings.chunk_s,
            allreduce_timeout=settings.all_reduce_s,
            # `share_state` turns this on.
            allow_state_sharing=False,
        )

    def aim_at(self, group_size: int) -> None:
        """Set the size at which a group starts at once, from the next `begin` on."""
        self._averager.aim_at(group_size)

    def write(self, vector: Vector) -> None:
        """Set this member's vector, float32, shape (elements,)."""
        self._tensor.numpy()[:] = vector

    def read(self, *, into: Vector) -> None:
        """Copy the result of the last round: the mean, or the member's own vector if it failed."""
        np.copyto(into, self._tensor.numpy())

    def begin(
        self,
        *,
        weight: float,
        timeout_s: float,
        gather: object = None,
        after_s: float | None = None,
    ) -> AveragingAttempt:
        """Start to look for a group.

        There is no second attempt; `hivemind.Optimizer` makes none either.

        Args:
            weight: The weight of this member's vector in the mean.
            timeout_s: How long to look for a group.
            gather: Plain values that reach every member of the group.
            after_s: When the all-reduce is expected to start; default: after the matchmaking time.
        """
        control = self._averager.step(
            gather=gather,
            scheduled_time=None if after_s is None else get_dht_time() + after_s,
            weight=weight,
            timeout=timeout_s,
            allow_retries=False,
            require_trigger=True,
            wait=False,
        )
        return AveragingAttempt(control)

    def share_state(self, number: int, vectors: Sequence[Vector]) -> None:
        """Give peers that ask a copy of these vectors, as the state of round `number`.

        hivemind asks the peer with the highest number first.
        """
        self._averager.share_state(number, [torch.tensor(vector) for vector in vectors])

    def download_state(self) -> tuple[int, list[Vector]] | None:
        """Download another peer's state, unverified.

        Returns:
            The round and the vectors of the state; None where no peer sent one.
        """
        future = self._averager.load_state_from_peers(wait=False)
        try:
            got = future.result(timeout=DOWNLOAD_S)
        except TimeoutError:
            return None
        if (
            got is None
            or not isinstance(got[0], dict)
            or not isinstance(number := got[0].get("number"), int)
        ):
            return None
        return number, [tensor.numpy() for tensor in got[1]]

    def close(self) -> None:
        """End the averager's process."""
        self._averager.shutdown()
