"""The client of one model: finds its stages, and generates with them. Any node can be one."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.services.inference.chain import Chain
from daemon.services.inference.connections import StageConnections
from daemon.services.inference.generation import (
    Generation,
    GenerationOptions,
    GenerationParts,
    GenerationRequest,
)
from daemon.services.inference.hop_calls import HopCalls
from daemon.services.inference.receipt_book import ReceiptBook
from daemon.services.inference.stage_audit import StageAuditor
from daemon.services.inference.stage_choice import StageChoice
from daemon.services.inference.stage_exchange import StageExchange
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.identity import Signer
from protocol.inference.activations import WireType
from protocol.inference.announcement import StageDirectory
from protocol.inference.messages import max_message_bytes
from protocol.inference.model import ModelManifest
from protocol.inference.recovery_events import GenerationEvent
from protocol.inference.replay_log import ReplayLog
from protocol.ports.network import Network

USUAL = GenerationOptions()
"""Exact recovery, and float32 on the wire."""


def ignore_event(_event: GenerationEvent) -> None:
    """The report of a generation that nobody watches."""


class InferenceClient:
    """Generates with the stages of one model, also many answers at once."""

    def __init__(
        self,
        network: Network,
        manifest: ModelManifest,
        model: Digest,
        directory: StageDirectory,
        exchange: StageExchange,
        payer: Signer | None = None,
    ) -> None:
        """`payer` signs receipts for the stages; without it they get none."""
        self._manifest, self._model = manifest, model
        self._book = None if payer is None else ReceiptBook(model, network.peer, payer)
        self._exchange = exchange
        self._choice = StageChoice(network, directory)
        self._connections = StageConnections(
            network, max_message_bytes(manifest.width, manifest.vocabulary)
        )

    @property
    def manifest(self) -> ModelManifest:
        return self._manifest

    @property
    def choice(self) -> StageChoice:
        """The stages that the client knows."""
        return self._choice

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the answers of stages, until cancelled. The exchange runs by itself."""
        await self._connections.run(task_status=task_status)

    def generation(
        self,
        request: GenerationRequest,
        options: GenerationOptions = USUAL,
        report: Callable[[GenerationEvent], None] = ignore_event,
    ) -> Generation:
        """Return a generation that has not begun. Use it as `async with`.

        Raises:
            UserError: "PROMPT" for a prompt that does not fit the model.
        """
        parts = GenerationParts(
            manifest=self._manifest,
            make_calls=self._calls,
            make_chain=self._chain,
            make_auditor=self._auditor,
        )
        return Generation(parts, request, options, report)

    def _auditor(
        self, make_calls: Callable[[], HopCalls], log: ReplayLog, options: GenerationOptions
    ) -> StageAuditor:
        return StageAuditor(self._manifest, self._choice, make_calls, log, options.wire)

    def _calls(self, name: bytes, cache_tokens: int, wire: WireType) -> HopCalls:
        return HopCalls(
            self._connections,
            self._manifest,
            self._model,
            name,
            cache_tokens,
            wire,
            self._book,
        )

    def _chain(
        self,
        calls: HopCalls,
        log: ReplayLog,
        report: Callable[[GenerationEvent], None],
        options: GenerationOptions,
    ) -> Chain:
        return Chain(
            self._choice,
            calls,
            log,
            report,
            row_bytes=self._manifest.width * (4 if options.wire == "float32" else 2),
            recovery=options.recovery,
            wait_for_news=self._exchange.wait_for_news,
        )
