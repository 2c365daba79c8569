"""An observer's part in a run: it verifies every certificate, and makes no offers."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.services.training.native.rounds.round_log import certified
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.chain_sync import ChainReply, serve_chain
from daemon.swarm.follower import Follower, FollowerHooks
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.owner_exchange import OwnerExchange
from daemon.swarm.task_agreement import serve_task
from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused, JournalEvent
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest


class RunObserver:
    """Follows a run over a network that is about to start."""

    def __init__(
        self,
        network: LibP2PNetwork,
        signer: Signer,
        signed: SignedManifest,
        name: str,
        journal: Journal,
        date_of: Callable[[JournalEvent], float | None] = lambda _event: None,
    ) -> None:
        """`date_of` returns when a certificate was first seen, where that is known."""
        self._date_of = date_of
        self._run, self._name, self._journal = signed.run, name, journal
        self._signer, self._network = signer, network
        self._manifest = signed.open()
        self.lineage = Lineage(signed.run, self._manifest)
        self.members = Members(signer.peer, journal.record, lambda _endpoint: None)
        self._messenger = Messenger(network, signed.run, self._deliver, self.refuse)
        self._follower = Follower(
            network=network,
            run=signed.run,
            signer=signer,
            lineage=self.lineage,
            members=self.members,
            refuse=self.refuse,
            hooks=FollowerHooks(
                on_entries=self._certified,
                on_members=lambda: None,
                on_gone=lambda _peer: None,
                beacon=self._beacon,
                send=self._messenger.send,
            ),
        )

        # A node asks every new peer these questions, before a beacon says which role the peer has.
        serve_chain(network, signed.run, self._no_chain)
        serve_task(network, lambda: None)
        # The owner's records travel through observers, too. None in runs without an owner.
        self.owner_records = (
            OwnerRecords(signed.run, self._manifest.owner)
            if self._manifest.owner and self._manifest.rules >= RULES_4
            else None
        )
        self._owner_exchange = (
            OwnerExchange(network, signed.run, self.owner_records, self.refuse)
            if self.owner_records is not None
            else None
        )

    async def _no_chain(self, first: int, limit: int) -> tuple[ChainReply, list[bytes]]:
        """Answer that an observer keeps no certificates."""
        return ChainReply(tip=self._run, number=0, age_s=0.0, count=0), []

    async def run(self) -> None:
        """Follow the run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._messenger.run)
            await nursery.start(self._follower.run)
            if self._owner_exchange is not None:
                nursery.start_soon(self._owner_exchange.run)

    def _certified(self, steps: list[LineageEntry]) -> None:
        for made in steps:
            event = certified(made, manifest=self._manifest)
            self._journal.record(event, at=self._date_of(event))
        self._journal.certified(made.certificate for made in steps)

    def refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        """Record that a peer's data was refused."""
        self._journal.record(InputRefused(reason=reason, peer=peer, detail=detail))

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        if not self._follower.receive(signed, message):
            self.refuse("not_member", signed.peer, f"a {type(message).__name__} to an observer")

    def _beacon(self) -> Beacon:
        best = self.lineage.best
        return Beacon(
            serial=time.time_ns(),
            name=self._name,
            role="observer",
            number=best.number,
            tip=best.hash,
            view=0,
            phase="observe",
            samples=0,
            loss=None,
            samples_per_second=0.0,
            device="",
            endpoint=None,
        )
