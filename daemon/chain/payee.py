"""Being paid: what a node adds to its training when its run is settled on a chain.

Nothing of it is waited for by training.

Three things, each missing without harm: the binding that its offers carry, the heartbeat, and the
data sets of settlements, which every node keeps and gives on. What is missing is said in one
sentence, with what mends it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import UNSET

from daemon.chain.certified_totals import CertifiedTotals
from daemon.chain.client_setup import account_turn, open_chain
from daemon.chain.datasets import fetch_dataset, load_dataset, serve_datasets
from daemon.chain.heartbeater import AgentIdentity, Heartbeater
from daemon.chain.home_runs import HomeRun
from daemon.chain.registrar import Registrar
from daemon.config.settings import ChainConfig, OracleConfig
from daemon.disk.atomic import write_atomically
from daemon.oracle.reporter import OracleEndpoint, OracleReporter, ReportSigner
from daemon.wallet.password import Password
from protocol.chain.account_binding import check_binding
from protocol.chain.errors import ChainError
from protocol.chain.keccak import Address, account_bytes
from protocol.chain.port import Chain, Proposal
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId
from protocol.journal import ChainReport, JournalEvent, Warned
from protocol.messages.base import UNREADABLE
from protocol.messages.offer import Binding
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.run.manifest import SignedManifest
from protocol.settlement.rules import Settlement

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

BINDINGS_FOLDER = "bindings"
# Between looks for a settlement's data set; a root waits for its delay, which is longer.
LOOK_S = 60.0
LOCKED = "start with --password-file PATH, or HYPERGPU_PASSWORD_FILE=PATH"


async def in_chain_thread(work: Callable[[], object]) -> object:
    """The chain's `Offload`: a thread of its own that a node which leaves does not wait for; what
    was sent is on disk, and looked after next time.
    """
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


class Payee:
    """One node's part in being paid.

    Made before its network starts; blocking work is done in `prepare`.
    """

    def __init__(
        self,
        *,
        home: Path,
        settings: ChainConfig,
        oracle: OracleConfig,
        signed: SignedManifest,
        peer: PeerId,
        name: str,
        password: Password | None,
        record: Callable[[JournalEvent], None],
    ) -> None:
        self._home = home
        self._settings = settings
        self._oracle = oracle
        self._peer = peer
        self._name = name
        self._run = HomeRun(run=signed.run, manifest=signed.open())
        self._password, self._record = password, record
        self._wallet: UnlockedWallet | None = None
        self._payout: Address | None = None
        self._chain: Chain | None = None
        self.figures = CertifiedTotals(peer)
        settlement = self._run.manifest.settlement
        self._registrar = (
            None if settlement is UNSET else Registrar(settlement, peer, record, time.time)
        )

    @property
    def wanted(self) -> bool:
        """Whether the run names a chain at all."""
        return self._run.manifest.chain != "none"

    def prepare(self) -> Binding | None:
        """Unlock the wallet and give the binding for this node's offers.

        Blocking, about two seconds. Raises nothing that a person could mend.
        """
        if not self.wanted:
            return None
        from daemon.wallet import files  # noqa: PLC0415  # eth-account is half a second that runs without a chain do not pay

        profile = self._run.manifest.chain
        try:
            if not files.has_wallet(self._home):
                self._say(
                    profile,
                    "none",
                    "this home has no wallet; make one with hypergpud wallet new, then start again",
                )
                return None
            info = files.wallet_info(self._home)
            self._payout = info.payout
            if self._password is not None:
                self._wallet = files.unlock(self._home, self._password)
            settlement = self._run.manifest.settlement
            binding = (
                None
                if settlement is UNSET
                else self._binding(settlement, account_bytes(info.payout))
            )
        except UserError as error:
            self._say(
                profile,
                "locked" if error.exit_code == 5 else "none",
                f"{error.what} {error.why}".strip(),
            )
            return None
        if self._wallet is None:
            self._say(profile, "locked", LOCKED)
        elif not self._settings.rpc:
            self._say(
                profile,
                "none",
                'no endpoint of the chain is known; write rpc = ["https://..."] under [chain] of config.toml',
            )
        else:
            self._say(profile, "waiting", "its first heartbeat comes once the node trains")
        return binding

    def _binding(self, settlement: Settlement, payout: bytes) -> Binding | None:
        """A fresh one where the wallet is open; else the one it signed before, when it still fits."""
        path = (
            self._home
            / BINDINGS_FOLDER
            / f"{settlement.chain_id}-{settlement.contract_bytes.hex()}"
        )
        if self._wallet is not None:
            from daemon.wallet.binding import bind  # noqa: PLC0415

            made = bind(
                self._wallet, self._peer, payout, settlement.chain_id, settlement.contract_bytes
            )
            write_atomically(path, [memoryview(msgspec.msgpack.encode(made))])
            return made
        try:
            kept = msgspec.msgpack.decode(path.read_bytes(), type=Binding)
            check_binding(kept, self._peer, settlement.chain_id, settlement.contract_bytes)
        except (OSError, PeerFault, *UNREADABLE):
            return None
        return kept if kept.payout == payout else None

    def serve(self, network: Network, offload: Offload) -> None:
        """Give data sets to those who ask, and answer challenges. Before the network starts."""
        if self.wanted:
            serve_datasets(network, self._home, offload)
        if self._registrar is not None:
            self._registrar.serve(network, lambda: self._wallet)

    def left_out(self, peer: PeerId) -> str:
        """Why a run that takes registered nodes only leaves this one out; empty when it does not."""
        known = self._registrar.of(peer) if self._registrar is not None else None
        return (
            f"its registration is {known.state.value}: {known.reason}"
            if known is not None and known.barred
            else ""
        )

    async def run(self, network: Network, counted: trio.Event, offload: Offload) -> None:
        """Heartbeats and data sets, until cancelled. Returns at once where there is nothing to do.

        `counted` is set once `figures` has the certificates that were on disk at the start: nothing
        is reported before.
        """
        if not self.wanted or not (self._settings.rpc or self._oracle.url):
            return
        await counted.wait()
        async with trio.open_nursery() as nursery:
            if self._oracle.url and self._wallet is not None:
                nursery.start_soon(self._reporter(self._wallet).run, in_chain_thread)
            if not self._settings.rpc:
                return
            if self._run.manifest.settlement is not UNSET:
                nursery.start_soon(self._follow_settlements, network, offload)
            if self._registrar is not None:
                nursery.start_soon(self._registrar.run, network, self._opened, offload)
            if self._wallet is not None:
                nursery.start_soon(self._heart().run)

    def _heart(self) -> Heartbeater:
        return Heartbeater(
            open_chain=self._opened,
            identity=AgentIdentity(name=self._name, payout=self._payout),
            figures=lambda: self.figures.now,
            offload=in_chain_thread,  # type: ignore[arg-type]  # an Offload whose threads may be left behind
            record=self._record,
            jitter=random.random,
            every_s=self._settings.heartbeat_s,
            turn=lambda: account_turn(self._home),
        )

    def _reporter(self, wallet: UnlockedWallet) -> OracleReporter:
        return OracleReporter(
            oracle=OracleEndpoint(url=self._oracle.url, legacy=self._oracle.legacy),
            signer=ReportSigner(wallet=wallet.address, sign=wallet.sign_text),
            folder=self._home / "runs" / self._run.run.hex(),
            figures=lambda: self.figures.totals,
            record=self._record,
        )

    def _opened(self) -> Chain:
        if self._chain is None:
            self._chain = open_chain(self._settings, self._run.manifest, self._home, self._wallet)
        return self._chain

    async def _follow_settlements(self, network: Network, offload: Offload) -> None:
        """Keep the data set of every root that the chain shows, from whichever peer has it."""
        while True:
            proposals = await in_chain_thread(self._proposals)
            assert isinstance(proposals, tuple)
            for proposal in proposals:
                try:
                    if (
                        await offload(lambda name=proposal.data: load_dataset(self._home, name))
                        is None
                    ):
                        peers = [link.peer for link in network.links()]
                        await fetch_dataset(network, peers, self._home, proposal.data, offload)
                except UserError as error:
                    self._record(
                        Warned(code=error.code, message=f"{error.what} {error.why}".strip())
                    )
            await trio.sleep(min(LOOK_S, self._settings.heartbeat_s))

    def _proposals(self) -> tuple[Proposal, ...]:
        try:
            pool = self._opened().pool()
        except (ChainError, UserError):
            # The heartbeat says what is wrong with the chain.
            return ()
        return tuple(one for one in (pool.active, pool.pending) if one is not None)

    def _say(self, profile: str, state: str, reason: str) -> None:
        self._record(ChainReport(profile=profile, state=state, reason=reason))
