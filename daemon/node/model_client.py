"""A light node that generates with the stages of a swarm. It serves nothing, and has a new key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.node_key import load_or_make_key
from daemon.models.text_tokens import tokenizer_of
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.manifest_search import JOIN_S
from daemon.services.inference.client import InferenceClient
from daemon.services.inference.model_exchange import fetch_model, fetch_tokenizer
from daemon.services.inference.stage_exchange import StageExchange
from daemon.system.offload import in_thread
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId
from protocol.inference.announcement import StageDirectory
from protocol.inference.model import ModelManifest, model_name
from protocol.ports.network import Network
from protocol.ports.stage import Tokenizer

# Between two looks at what the entry points have answered.
LOOK_S = 0.25
# Before a node that named no model is asked again.
AGAIN_S = 1.0


class JoinedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the swarm serves, and what generates with it."""

    model: Digest
    manifest: ModelManifest
    tokenizer: Tokenizer
    # What `tokenizer` was made of; b"" where tokens are bytes.
    tokenizer_file: bytes
    client: InferenceClient
    network: Network


@asynccontextmanager
async def joined_model(
    config: Config, wanted: str, refuse: Callable[[str, PeerId, str], None]
) -> AsyncIterator[JoinedModel]:
    """Join the nodes of `network.join`, and keep a client of their model running in the block.

    Args:
        config: the settings, with the addresses to join.
        wanted: the model's name for people, or the beginning of its id; "" where the joined nodes
            serve one model.
        refuse: counts what a peer sent against the rules, by reason, peer and detail.

    Raises:
        UserError: "JOIN" where no node answers, "MODEL" where none serves the wanted model or
            several models are served, "EXTRA" where the tokenizer needs the extra "hf".
    """
    settings = msgspec.structs.replace(network_settings(config, bulk=False), listen_port=0)
    certificate = load_or_make(config.home / BULK_CERTIFICATE_FILE, "client")
    network = LibP2PNetwork(settings, os.urandom(32), certificate)
    # Only receipts are signed with the home's key: a stage of this home may run beside.
    payer, _secret = await in_thread(partial(load_or_make_key, config.home))
    async with network.running(), trio.open_nursery() as nursery:
        manifest, holder = await _Search(network, wanted).run()
        content = await _tokenizer_file(network, holder, manifest)
        tokenizer = await in_thread(lambda: tokenizer_of(manifest, content))
        model = model_name(manifest)
        directory = StageDirectory(model)
        exchange = StageExchange(network, directory, refuse, answers=False)
        client = InferenceClient(network, manifest, model, directory, exchange, payer)
        await nursery.start(client.run)
        await nursery.start(exchange.run)
        yield JoinedModel(
            model=model,
            manifest=manifest,
            tokenizer=tokenizer,
            tokenizer_file=content,
            client=client,
            network=network,
        )
        nursery.cancel_scope.cancel()


class _Search:
    """Asks the entry points for their models."""

    def __init__(self, network: LibP2PNetwork, wanted: str) -> None:
        self._network, self._wanted = network, wanted
        self._reasons: dict[PeerId, str] = {}
        self._found: dict[Digest, tuple[ModelManifest, PeerId]] = {}

    async def run(self) -> tuple[ModelManifest, PeerId]:
        """Ask until a model fits. Returns it, and who has it. Raises `UserError`."""
        with trio.move_on_after(JOIN_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask_all)
                while not self._fitting():
                    await trio.sleep(LOOK_S)
                # Other entry points may serve other models.
                await trio.sleep(LOOK_S)
                nursery.cancel_scope.cancel()
        fitting = self._fitting()
        if len(fitting) == 1:
            return fitting[0]
        raise self._several() if fitting else self._nothing()

    async def _ask_all(self) -> None:
        asked: set[PeerId] = set()
        async with trio.open_nursery() as nursery:
            while True:
                for peer in self._network.entries.peers():
                    if peer not in asked:
                        asked.add(peer)
                        nursery.start_soon(self._ask, peer)
                await trio.sleep(LOOK_S)

    async def _ask(self, peer: PeerId) -> None:
        """Ask one node until it names a model that fits: it may still load its layers."""
        while True:
            try:
                manifest = (await fetch_model(self._network, peer)).open()
            except (Unreachable, PeerFault) as error:
                self._reasons[peer] = str(error)
            else:
                self._found[model_name(manifest)] = (manifest, peer)
                return
            await trio.sleep(AGAIN_S)

    def _fitting(self) -> list[tuple[ModelManifest, PeerId]]:
        return [
            found
            for model, found in self._found.items()
            if _is_meant(model, found[0].name, self._wanted)
        ]

    def _listed(self) -> str:
        return ", ".join(
            f"{manifest.name} ({model.hex()[:SHOWN_DIGITS]})"
            for model, (manifest, _peer) in self._found.items()
        )

    def _several(self) -> UserError:
        return UserError(
            "MODEL",
            "The nodes at the given addresses serve several models.",
            why=self._listed(),
            fix="choose one with --model",
            exit_code=2,
        )

    def _nothing(self) -> UserError:
        sought = f"the model {self._wanted!r}" if self._wanted else "a model"
        reasons = [f"they serve {self._listed()}"] if self._found else []
        reasons += [*self._reasons.values(), *self._network.entries.faults.values()]
        return UserError(
            "MODEL" if self._found else "JOIN",
            f"No node at the given addresses serves {sought}.",
            why=reasons[0] if reasons else f"none answered within {JOIN_S:.0f} s",
            fix="name the address of a stage: hypergpud serve prints it",
        )


def _is_meant(model: Digest, name: str, wanted: str) -> bool:
    return not wanted or name == wanted or model.hex().startswith(wanted.lower())


async def _tokenizer_file(network: Network, peer: PeerId, manifest: ModelManifest) -> bytes:
    try:
        return await fetch_tokenizer(network, peer, manifest)
    except (Unreachable, PeerFault) as error:
        raise UserError(
            "MODEL",
            f"The tokenizer of {manifest.name} could not be fetched.",
            why=str(error),
            fix="try again, or name the address of another stage with --join",
        ) from None
