"""Asks peers to prove that they hold the wallet they work for, and answers their challenges.

The rules are in `protocol/chain/registration.py`. Each challenge has its own stream: the challenge
in one direction, then one frame with the wallet's key and signature in the other. The frame is
empty if the peer's wallet is locked. Challenges go to connected peers, a few at a time, and nothing
waits for them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import trio
from msgspec import Meta

from daemon.swarm.frames import FrameReader, frame
from protocol.chain.errors import ChainError
from protocol.chain.keccak import address_of
from protocol.chain.port import Chain
from protocol.chain.registration import (
    NONCE_BYTES,
    VALID_S,
    Registration,
    RegistrationEvent,
    RegistrationState,
    challenge_digest,
    judge_answer,
    moved,
)
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId
from protocol.journal import JournalEvent, PeerRegistered
from protocol.messages.base import UNREADABLE, Hash, Signature
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.settlement.rules import Settlement

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

T = TypeVar("T")

PROTOCOL = "/hypergpu/registration/1"
MAX_BYTES = 256
# The interval between looks at the connected peers. A registration is not urgent.
LOOK_S = 30.0
# As many as a status shows.
MAX_KEPT = 4096


class RegistrationChallenge(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True
):
    nonce: Hash
    expires_s: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class RegistrationReply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    public_key: Annotated[bytes, Meta(min_length=33, max_length=33)]
    signature: Signature


class Registrar:
    """One node's view of which peers are registered.

    The view is bounded. A peer is asked again only when its registration is due.
    """

    def __init__(
        self,
        settlement: Settlement,
        me: PeerId,
        record: Callable[[JournalEvent], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._terms = settlement.chain_id, settlement.contract_bytes
        self._me, self._record, self._wall_s = me, record, wall_s
        self._known: OrderedDict[PeerId, Registration] = OrderedDict()

    def of(self, peer: PeerId) -> Registration:
        return self._known.get(peer) or Registration(peer=peer)

    def serve(self, network: Network, wallet: Callable[[], UnlockedWallet | None]) -> None:
        """Answer challenges while the wallet is unlocked. Call this before the network starts."""

        async def answer_challenge(stream: ByteStream) -> None:
            challenge = _decode(
                await FrameReader(stream).expect_frame(MAX_BYTES), RegistrationChallenge
            )
            open_wallet, answer = wallet(), b""
            if open_wallet is not None:
                signed = challenge_digest(
                    self._me, challenge.nonce, challenge.expires_s, *self._terms
                )
                answer = msgspec.msgpack.encode(
                    RegistrationReply(open_wallet.public_key, open_wallet.sign_digest(signed)[:64])
                )
            await stream.send_all(frame(answer))
            await stream.send_eof()

        network.serve(PROTOCOL, answer_challenge)

    async def run(self, network: Network, chain: Callable[[], Chain], offload: Offload) -> None:
        """Look at all connected peers, again and again, until cancelled."""
        while True:
            for peer in [link.peer for link in network.links()]:
                await self.look_at(network, peer, chain, offload)
            await trio.sleep(LOOK_S)

    async def look_at(
        self, network: Network, peer: PeerId, chain: Callable[[], Chain], offload: Offload
    ) -> None:
        """Challenge a peer if that is due, and look up its wallet on the chain if it answered."""
        known = self.of(peer)
        if known.due(self._wall_s()):
            now_s = self._wall_s()
            asked = moved(
                known,
                RegistrationEvent.ASKED,
                now_s,
                nonce=os.urandom(NONCE_BYTES),
                expires_s=int(now_s + VALID_S),
            )
            self._keep(asked)
            known = await self._ask(network, asked)
            self._keep(known)
        if known.wallet and known.state not in {
            RegistrationState.REJECTED,
            RegistrationState.EXPIRED,
        }:
            self._keep(await offload(lambda: self._on_chain(known, chain)))

    async def _ask(self, network: Network, asked: Registration) -> Registration:
        try:
            with trio.move_on_after(VALID_S):
                stream = await network.open_stream(asked.peer, PROTOCOL)
                try:
                    await stream.send_all(
                        frame(
                            msgspec.msgpack.encode(
                                RegistrationChallenge(asked.nonce, asked.expires_s)
                            )
                        )
                    )
                    raw = await FrameReader(stream).expect_frame(MAX_BYTES)
                finally:
                    await stream.aclose()
                if not raw:
                    return moved(
                        asked, RegistrationEvent.SILENT, self._wall_s(), "its wallet is locked"
                    )
                reply = _decode(raw, RegistrationReply)
                return judge_answer(
                    asked, reply.public_key, reply.signature, self._wall_s(), *self._terms
                )
        except Unreachable as error:
            return moved(asked, RegistrationEvent.SILENT, self._wall_s(), str(error))
        except PeerFault as fault:
            return moved(asked, RegistrationEvent.WRONG, self._wall_s(), str(fault))
        return moved(
            asked, RegistrationEvent.SILENT, self._wall_s(), f"no answer within {VALID_S:g} s"
        )

    def _on_chain(self, known: Registration, chain: Callable[[], Chain]) -> Registration:
        try:
            agent = chain().agent(address_of(known.wallet))
        except (ChainError, UserError):
            # The heartbeat reports the problem.
            return known
        if not agent.registered:
            return moved(
                known,
                RegistrationEvent.OFF_CHAIN,
                self._wall_s(),
                "its wallet is not registered on the chain",
            )
        if not agent.active:
            return moved(
                known,
                RegistrationEvent.INACTIVE,
                self._wall_s(),
                "its last heartbeat is too old",
            )
        return moved(known, RegistrationEvent.ON_CHAIN, self._wall_s())

    def _keep(self, found: Registration) -> None:
        before = self.of(found.peer)
        self._known[found.peer] = found
        self._known.move_to_end(found.peer)
        while len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)
        if before.state is not found.state:
            wallet = address_of(found.wallet) if found.wallet else ""
            self._record(
                PeerRegistered(
                    peer=found.peer, state=found.state.value, wallet=wallet, reason=found.reason
                )
            )


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a {kind.__name__}: {error}") from None
