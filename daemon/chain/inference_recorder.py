"""Records on the chain what this node served: precompile 0x20, once for each stretch of service.

Like the oracle's reports, a record is the difference of two cumulative figures: what the receipts
say and what the chain has. The second one is written to disk before the transaction is sent. So a
crash between the two leaves at most one stretch unrecorded, and records none twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import trio

from daemon.chain.served_work import ServedModel
from daemon.disk.atomic import write_atomically
from protocol.chain.errors import ChainError, ChainPending
from protocol.chain.port import Chain, InferenceRecord
from protocol.errors import UserError
from protocol.journal import JournalEvent, Warned
from protocol.ports.disk import DiskFull

RECORDED_FILE = "recorded-tokens"
RECORD_S = 3600.0
"""The time between two records. A record costs about 70,000 gas, as a first claim does."""

SETTLE_S = 60.0


class InferenceRecorder:
    """Sends the records of one node. Only `run` does not block."""

    def __init__(
        self,
        open_chain: Callable[[], Chain],
        folder: Path,
        served: Callable[[], Sequence[ServedModel]],
        record: Callable[[JournalEvent], None],
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """
        Args:
            open_chain: returns the chain.
            folder: where to remember what was recorded.
            served: returns what the receipts say.
            record: accepts events of the journal.
            turn: excludes the other processes that sign with the same wallet.
        """
        self._open_chain, self._path = open_chain, folder / RECORDED_FILE
        self._served, self._record, self._turn = served, record, turn
        self._failing = ""
        self._recorded = self._load()

    async def run(self, offload: Callable[[Callable[[], object]], Awaitable[object]]) -> None:
        """Record what was served every hour, until cancelled."""
        while True:
            await offload(self.send)
            await trio.sleep(RECORD_S)

    def send(self) -> int:
        """Record what was served since the last record. Returns how many tokens that was."""
        sent = 0
        for served in self._served():
            fresh = served.tokens - self._recorded.get(served.model.hex(), 0)
            if fresh <= 0:
                continue
            try:
                with self._turn():
                    reason = self._send(self._open_chain(), served, fresh)
            except ChainPending:
                # It is signed and recorded, and a later process sees it through.
                reason = ""
            except (ChainError, UserError, DiskFull) as error:
                reason = str(error)
            if reason and reason != self._failing:
                message = f"{fresh} served tokens are not recorded on the chain: {reason}"
                self._record(Warned(code="CHAIN", message=message))
            self._failing = reason
            sent += 0 if reason else fresh
        return sent

    def _send(self, chain: Chain, served: ServedModel, fresh: int) -> str:
        """Send one record. Returns why it was not made; "" where it was."""
        if not chain.agent(chain.account).registered:
            return "the account is not registered yet"
        made = InferenceRecord(
            model=served.model, inputs=served.prompts, outputs=served.answers, tokens=fresh
        )
        before = dict(self._recorded)
        self._keep({**before, served.model.hex(): served.tokens})
        try:
            sent = chain.record_inference(made)
        except ChainError:
            # Nothing was signed.
            self._keep(before)
            raise
        settled = chain.wait(sent, SETTLE_S)
        if not settled.done:
            self._keep(before)
        return "" if settled.done else settled.reason or "the transaction was not included"

    def _keep(self, recorded: dict[str, int]) -> None:
        """Write down what the chain has. Raises `DiskFull`, and changes nothing then."""
        write_atomically(self._path, [memoryview(msgspec.json.encode(recorded))])
        self._recorded = recorded

    def _load(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, ValueError) as error:
            message = f"cannot read {self._path}; tokens served before are not recorded: {error}"
            self._record(Warned(code="CHAIN", message=message))
            return {served.model.hex(): served.tokens for served in self._served()}
