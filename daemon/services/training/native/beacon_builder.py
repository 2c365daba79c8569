"""Builds what a node reports about itself: its beacon, and the certificates of its lineage."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.services.training.native.state.disk_queries import readable_records
from daemon.services.training.native.state.state_sync import StateSync
from daemon.swarm.chain_sync import ChainReply
from daemon.swarm.training_speed import RecentTrainingSpeed
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.messages.beacon import Beacon
from protocol.ports.disk import Disk
from protocol.ports.network import Network
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.round.state import RoundState


class BeaconBuilder:
    """Builds one node's beacons, and its replies to requests for certificates."""

    def __init__(
        self,
        *,
        name: str,
        run: Digest,
        network: Network,
        trainer: Trainer,
        disk: Disk,
        serial: Callable[[], int],
    ) -> None:
        self._name = name
        self._run = run
        self._network = network
        self._trainer = trainer
        self._disk = disk
        self._serial = serial
        self._last_serial = 0
        self._pace = RecentTrainingSpeed(trainer)

    def next_serial(self) -> int:
        """Return a serial above the last one, even after the wall clock was set back."""
        self._last_serial = max(self._last_serial + 1, self._serial())
        return self._last_serial

    def beacon(
        self,
        state: RoundState | None,
        info: TaskInfo | None,
        task: bytes,
        arriving: Tip | None = None,
    ) -> Beacon:
        """Build a beacon.

        Args:
            state: The state of the node's round; None while the worker is starting.
            info: The task; None while the worker is starting.
            task: The task's name; empty while the worker is starting.
            arriving: The tip that the node will reach within the time that a leader waits for an
                offer. The beacon names the tip early, so that the leader waits.
        """
        pace = self._pace.now(trio.current_time())
        tip = arriving or (state.tip if state else None)
        return Beacon(
            serial=self.next_serial(),
            name=self._name,
            role="node",
            number=tip.number if tip else 0,
            tip=tip.hash if tip else self._run,
            view=state.view if state else 0,
            phase=state.phase.value if state else "starting",
            samples=self._trainer.progress().samples,
            loss=pace.loss,
            samples_per_second=pace.samples_per_second,
            device=info.device if info else "",
            endpoint=self._network.endpoint,
            task=task,
        )

    async def chain(
        self, state: RoundState | None, state_sync: StateSync | None, first: int, limit: int
    ) -> tuple[ChainReply, list[bytes]]:
        """Return the records from number `first` on: those on disk, then the unwritten ones."""
        if state is None or state_sync is None:
            return ChainReply(tip=self._run, number=0, age_s=0.0, count=0), []
        stored = await readable_records(self._disk, self._run, max(first, 1), limit)
        waiting = [
            record
            for number, record in state_sync.unwritten
            if number >= first and record not in stored
        ]
        records = [*stored, *waiting][:limit]
        age_s = trio.current_time() - state_sync.adopted_at
        return ChainReply(
            tip=state.tip.hash, number=state.tip.number, age_s=age_s, count=len(records)
        ), records
