"""Shares this member's state, downloads another member's state, and writes the state to disk."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.children.messages import CommandDone
from daemon.services.training.hivemind.member_state import MemberState
from daemon.services.training.hivemind.messages import DownloadState, ShareState, StateDownloaded
from daemon.services.training.hivemind.process import (
    HivemindLost,
    HivemindProcess,
    failure_reason,
)
from protocol.journal import CaughtUp, CheckpointWritten, JournalEvent, Warned, WorkDropped
from protocol.ports.disk import DiskFull

# After these attempts, training begins from this node's own state.
MAX_DOWNLOADS = 3
# The pause between two attempts.
DOWNLOAD_PAUSE_S = 2.0


class StateExchange:
    """Moves one member's state between its memory, the hivemind process and the disk."""

    def __init__(
        self,
        process: HivemindProcess,
        state: MemberState,
        record: Callable[[JournalEvent], None],
        enter: Callable[[str, str], None],
        finish: trio.Event,
    ) -> None:
        """`enter` announces a phase and the reason for it; `finish` ends the pauses early."""
        self._process, self._state = process, state
        self._record, self._enter, self._finish = record, enter, finish
        # The start of the process to which this state was given last.
        self._shared_start = 0

    async def share_if_restarted(self) -> None:
        """Share the state with a process that has restarted since the last share."""
        if self._process.is_up and self._process.starts != self._shared_start:
            await self.share()

    async def share(self) -> None:
        """Let hivemind give this state to newcomers."""
        process, state = self._process, self._state
        process.anchor[:], process.momentum[:] = state.anchor, state.momentum
        try:
            report = await process.ask(lambda number: ShareState(id=number, number=state.number))
        except HivemindLost:
            # The supervisor reports the end of the process. The next round shares again.
            return
        if isinstance(report, CommandDone):
            self._shared_start = process.starts

    async def catch_up(self) -> bool:
        """Replace the state by another member's. Returns whether that worked.

        Nothing proves that the downloaded state is right: only its sender vouches for it.
        """
        began = trio.current_time()
        self._enter("fetch", "other members are ahead; downloading the state of one of them")
        reason = ""
        for attempt in range(MAX_DOWNLOADS):
            with trio.move_on_after(DOWNLOAD_PAUSE_S if attempt else 0.0):
                await self._finish.wait()
            try:
                report = await self._process.ask(lambda number: DownloadState(id=number))
            except HivemindLost as lost:
                reason = str(lost)
                continue
            if isinstance(report, StateDownloaded) and report.number >= self._state.number:
                self._replace_state(report.number, began)
                await self.share()
                return True
            reason = (
                f"the state offered is of round {report.number}"
                if isinstance(report, StateDownloaded)
                else failure_reason(report)
            )
        self._record(
            Warned(
                code="STATE",
                message=f"Training continues from round {self._state.number}, without the other"
                f" members' state: {reason}",
            )
        )
        return False

    def _replace_state(self, number: int, began: float) -> None:
        state = self._state
        if state.samples:
            reason = "the state was replaced by another member's"
            self._record(WorkDropped(samples=state.samples, reason=reason))
        state.replace(number, self._process.anchor, self._process.momentum)
        self._record(
            CaughtUp(
                number=number,
                source="",
                size_bytes=2 * state.anchor.nbytes,
                seconds=trio.current_time() - began,
            )
        )

    async def save(self) -> None:
        """Write a checkpoint. A full disk costs a warning."""
        began, state = trio.current_time(), self._state
        try:
            await state.save()
        except DiskFull as full:
            self._warn_disk_full(f"The state of round {state.number} was not saved: {full}")
            return
        self._record(
            CheckpointWritten(
                number=state.number,
                size_bytes=2 * state.anchor.nbytes,
                seconds=trio.current_time() - began,
            )
        )

    async def save_pending(self) -> None:
        """Write a checkpoint and the pending work, so that a restart continues from here."""
        await self.save()
        try:
            await self._state.save_pending()
        except DiskFull as full:
            samples = self._state.samples
            self._warn_disk_full(f"{samples} samples are lost if this node ends now: {full}")

    def _warn_disk_full(self, message: str) -> None:
        self._record(Warned(code="DISK_FULL", message=message))
