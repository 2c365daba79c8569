"""A swarm of fake stages in virtual time: services, faults, and a client that generates.

The services and the client are the node's real code. Networks, stages and time are fakes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import trio

from daemon.services.inference.client import USUAL, InferenceClient
from daemon.services.inference.generation import (
    PREFILL_TOKENS,
    Generation,
    GenerationOptions,
    GenerationRequest,
)
from daemon.services.inference.receipt_desk import ReceiptDesk
from daemon.services.inference.service import InferenceService, StageSettings
from daemon.services.inference.stage_exchange import StageExchange
from protocol.generation.sampler import SamplingRules, choose_token
from protocol.identity import Signer
from protocol.inference.announcement import StageDirectory
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest, model_name
from protocol.inference.receipt import ServiceReceipt, SignedReceipt
from protocol.inference.recovery_events import GenerationEvent
from protocol.ports.stage import Stage, Tokenizer
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from simulator.fakes.swarm import FakeSwarm

PROMPT = tuple(b"the quick brown fox")
MODEL = model_name(FAKE_MODEL)
CLIENT = b"client" + bytes(26)


class FakeLocalModel:
    """A model whose stage was made before. Satisfies `LocalModel`."""

    def __init__(self, stage: FakeStage) -> None:
        self._stage = stage

    @property
    def manifest(self) -> ModelManifest:
        return FAKE_MODEL

    def tokenizer(self) -> Tokenizer:
        raise NotImplementedError

    def tokenizer_file(self) -> bytes:
        return b""

    async def export(self, names: Sequence[str], folder: Path) -> None:
        raise NotImplementedError

    def stage(self, layers: LayerRange, cache_tokens: int) -> AbstractAsyncContextManager[Stage]:
        @asynccontextmanager
        async def running() -> AsyncIterator[Stage]:
            yield self._stage

        return running()


class Node:
    """One stage of the swarm, and the service around it."""

    def __init__(self, network: FakeNetwork, stage: FakeStage, service: InferenceService) -> None:
        self.network, self.stage, self.service = network, stage, service
        # Neither killed nor paused.
        self.alive = True

    @property
    def peer(self) -> str:
        return self.network.peer


class InferenceWorld:
    """The swarm. Nodes can be added and killed at any moment."""

    def __init__(self, swarm: FakeSwarm, nursery: trio.Nursery) -> None:
        self.swarm, self._nursery = swarm, nursery
        self.nodes: list[Node] = []
        self.refusals: list[tuple[str, str]] = []
        # The last receipt that each stage kept.
        self.receipts: dict[str, ServiceReceipt] = {}
        self._serials = itertools.count(1)
        self._keys = itertools.count(1)

    def add(self, first: int, stop: int, *, cache_tokens: int = 4096, **settings: object) -> Node:
        """Start a stage with these layers."""
        layers = LayerRange(first=first, stop=stop)
        stage = FakeStage(layers, cache_tokens, **settings)  # type: ignore[arg-type]
        secret = next(self._keys).to_bytes(32, "big")
        network = self.swarm.network(secret)
        service = InferenceService(
            FakeLocalModel(stage),
            StageSettings(name="stage", layers=layers, count=0, cache_tokens=cache_tokens),
            ReceiptDesk(MODEL, Signer(secret), self._keep),
            lambda: next(self._serials),
            self.refuse,
            lambda _line: None,
            random.Random(1),
        )
        service.register(network)
        node = Node(network, stage, service)
        self.nodes.append(node)
        self._nursery.start_soon(_live, network, service)
        return node

    async def _keep(self, signed: SignedReceipt | None, session: str) -> None:
        if signed is None:
            del self.receipts[session]
            return
        receipt = signed.open_countersigned()
        self.receipts[receipt.stage] = receipt

    def refuse(self, reason: str, _peer: str, detail: str) -> None:
        self.refusals.append((reason, detail))

    def kill(self, node: Node) -> None:
        node.alive = False
        self.swarm.kill(node.peer)

    def pause(self, node: Node) -> None:
        """Let a node answer nothing any more, as SIGSTOP does."""
        node.alive = False
        self.swarm.pause(node.peer)

    @asynccontextmanager
    async def client(self, secret: bytes = CLIENT) -> AsyncIterator[InferenceClient]:
        """Run a client until the end of the block. It knows all stages at the beginning."""
        network = self.swarm.network(secret)
        directory = StageDirectory(MODEL)
        exchange = StageExchange(
            network, directory, self.refuse, rng=random.Random(2), answers=False
        )
        client = InferenceClient(network, FAKE_MODEL, MODEL, directory, exchange, Signer(secret))
        async with trio.open_nursery() as nursery, network.running():
            await nursery.start(client.run)
            await nursery.start(exchange.run)
            while len(directory.stages(trio.current_time())) < len(self.nodes):
                await trio.sleep(0.1)
            try:
                yield client
            finally:
                nursery.cancel_scope.cancel()


async def _live(network: FakeNetwork, service: InferenceService) -> None:
    async with network.running():
        await service.run()


@asynccontextmanager
async def inference_world(latency_s: float = 0.01) -> AsyncIterator[InferenceWorld]:
    swarm = FakeSwarm(random.Random(3), same_link(LinkModel(latency_s=latency_s)))
    async with swarm.running(), trio.open_nursery() as nursery:
        yield InferenceWorld(swarm, nursery)
        nursery.cancel_scope.cancel()


def request(
    tokens: int = 40, temperature: float = 0.8, prompt: Sequence[int] = PROMPT
) -> GenerationRequest:
    rules = SamplingRules(temperature=temperature, seed=5)
    return GenerationRequest(prompt=tuple(prompt), max_tokens=tokens, rules=rules)


async def expected_tokens(wanted: GenerationRequest) -> list[int]:
    """The tokens that one process makes, which holds the whole model."""
    layers = LayerRange(first=0, stop=FAKE_MODEL.layers)
    stage = FakeStage(layers, 4096)
    await stage.open(b"alone", layers, 4096)
    made: list[int] = []
    position, chunk = 0, np.array(wanted.prompt, np.int32)
    while len(chunk) > PREFILL_TOKENS:
        await stage.step(b"alone", position, chunk[:PREFILL_TOKENS])
        position, chunk = position + PREFILL_TOKENS, chunk[PREFILL_TOKENS:]
    while len(made) < wanted.max_tokens:
        logits = (await stage.step(b"alone", position, chunk))[0]
        position += len(chunk)
        made.append(choose_token(logits, wanted.rules, len(made)))
        chunk = np.array(made[-1:], np.int32)
    return made


async def generate(
    client: InferenceClient,
    wanted: GenerationRequest,
    *,
    at: Callable[[int, Generation], None] = lambda _count, _generation: None,
    options: GenerationOptions = USUAL,
    events: list[GenerationEvent] | None = None,
) -> Generation:
    """Generate to the end. `at(count, generation)` is called before each token."""
    report = (events if events is not None else []).append
    async with client.generation(wanted, options, report) as generation:
        at(0, generation)
        while await generation.next_token() is not None:
            at(len(generation.tokens), generation)
    return generation
