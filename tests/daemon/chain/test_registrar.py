"""Registration over the fake network: challenges that expire, and the chain's view of a wallet."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from itertools import product

import pytest
import trio
from msgspec import UNSET
from msgspec.structs import replace

from contracts.devnet.genesis import COIN
from daemon.chain.registrar import PROTOCOL, Registrar
from daemon.swarm.frames import frame
from daemon.wallet.keystore import UnlockedWallet
from protocol.chain.registration import (
    AGAIN_S,
    TABLE,
    VALID_S,
    Registration,
    RegistrationEvent,
    RegistrationState,
    challenge_digest,
    judge_answer,
    moved,
)
from protocol.identity import Signer
from protocol.journal import JournalEvent, PeerRegistered
from protocol.ports.byte_stream import ByteStream
from protocol.ports.offload import inline
from simulator.fakes.chain import FakeChain
from simulator.fakes.clock import run_virtual
from simulator.fakes.ledger import FakeLedger
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.swarm import FakeSwarm
from tests.protocol.settlement.paid import CHAIN, CONTRACT, PAID, wallet

PEER = Signer(bytes(32)).peer
ASKED = moved(
    Registration(peer=PEER), RegistrationEvent.ASKED, 100.0, nonce=b"\x07" * 32, expires_s=160
)
S, H = RegistrationState, RegistrationEvent


def answer(
    known: Registration, who: UnlockedWallet, *, chain: int = CHAIN, nonce: bytes | None = None
) -> tuple[bytes, bytes]:
    signed = challenge_digest(known.peer, nonce or known.nonce, known.expires_s, chain, CONTRACT)
    return who.public_key, who.sign_digest(signed)[:64]


def test_a_valid_answer_in_time_is_verified_and_the_chain_approves() -> None:
    verified = judge_answer(ASKED, *answer(ASKED, wallet(0)), 160.0, CHAIN, CONTRACT)
    assert (verified.state, verified.wallet) == (S.VERIFIED, wallet(0).raw_address)
    approved = moved(verified, H.ON_CHAIN, 200.0)
    assert approved.state is S.APPROVED
    suspended = moved(approved, H.INACTIVE, 300.0, "silent")
    assert (suspended.state, suspended.barred) == (S.SUSPENDED, False)
    assert moved(suspended, H.ON_CHAIN, 400.0).state is S.APPROVED


def test_late_and_wrong_answers_are_challenged_again_later() -> None:
    late = judge_answer(ASKED, *answer(ASKED, wallet(0)), 160.5, CHAIN, CONTRACT)
    other_chain = judge_answer(ASKED, *answer(ASKED, wallet(0), chain=1), 120.0, CHAIN, CONTRACT)
    replayed = judge_answer(
        ASKED, *answer(ASKED, wallet(0), nonce=b"\x08" * 32), 120.0, CHAIN, CONTRACT
    )
    garbage = judge_answer(ASKED, bytes(33), bytes(64), 120.0, CHAIN, CONTRACT)
    assert [one.state for one in (late, other_chain, replayed, garbage)] == [
        S.EXPIRED,
        S.REJECTED,
        S.REJECTED,
        S.REJECTED,
    ]
    assert [one.barred for one in (late, replayed)] == [False, True]
    for one in (late, replayed):
        assert not one.due(one.since_s + AGAIN_S - 1)
        assert one.due(one.since_s + AGAIN_S)


def test_only_the_table_changes_a_registration() -> None:
    for state, happening in product(S, H):
        known = Registration(peer=PEER, state=state)
        assert moved(known, happening, 1.0).state is TABLE.get((state, happening), state)
    assert {state for state, _ in TABLE} | set(TABLE.values()) == set(S)


class RegistrationNetwork:
    """A node that challenges three others: an unlocked wallet, a locked one, and a false answer."""

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []
        self.ledger = FakeLedger(
            trio.current_time,
            owner=wallet(0).address,
            settlers=(),
            needed=1,
            funded={wallet(1).address: COIN},
        )
        self.chain = FakeChain(self.ledger, wallet(1).address, lambda _: None)
        world = FakeSwarm(random.Random(7), same_link(LinkModel()))
        self.world, self.networks = world, [world.network(bytes([i]) * 32) for i in range(4)]
        self.registrar = self._registrar(0, self.events)
        self._registrar(1, []).serve(self.networks[1], lambda: wallet(1))
        self._registrar(2, []).serve(self.networks[2], lambda: None)
        self.networks[3].serve(PROTOCOL, self._answer_falsely)

    def _registrar(self, i: int, events: list[JournalEvent]) -> Registrar:
        assert PAID.settlement is not UNSET
        return Registrar(PAID.settlement, self.networks[i].peer, events.append, trio.current_time)

    async def _answer_falsely(self, stream: ByteStream) -> None:
        await stream.receive_some(256)
        await stream.send_all(frame(b"\xc1"))
        await stream.send_eof()

    def states_of(self, i: int) -> list[str]:
        return [
            event.state
            for event in self.events
            if isinstance(event, PeerRegistered) and event.peer == self.networks[i].peer
        ]

    async def run_for(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.registrar.run(self.networks[0], lambda: self.chain, inline)


def test_registrar_challenges_peers_and_follows_the_chain() -> None:
    async def story() -> None:
        nodes = RegistrationNetwork()
        async with nodes.world.running(), AsyncExitStack() as lives:
            for network in nodes.networks:
                await lives.enter_async_context(network.running())
            while len(nodes.networks[0].links()) < 3:
                await trio.sleep(0.1)
            await nodes.run_for(40.0)
            assert nodes.states_of(1) == ["challenged", "verified"]
            assert nodes.states_of(2) == ["challenged", "expired"]
            assert nodes.states_of(3) == ["challenged", "rejected"]
            nodes.chain.register("node 1")
            await nodes.run_for(40.0)
            assert nodes.states_of(1)[2:] == ["approved"]
            # The wallet sends no heartbeat.
            await nodes.run_for(400.0)
            assert nodes.states_of(1)[3:] == ["suspended"]
            await nodes.run_for(AGAIN_S)
            assert nodes.states_of(2)[2:] == ["challenged", "expired"]
            nodes.world.kill(nodes.networks[1].peer)
            await nodes.run_for(AGAIN_S)

    run_virtual(story)


def test_a_challenge_expires_at_its_own_time() -> None:
    assert ASKED.expires_s - 100.0 == VALID_S
    with pytest.raises(OverflowError):
        challenge_digest(PEER, bytes(32), -1, CHAIN, CONTRACT)
    assert replace(ASKED, nonce=b"\x01" * 32) != ASKED
