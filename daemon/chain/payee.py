"""The payee: what a node adds to training when its run is settled on a chain.

The payee adds the binding that the node's offers carry, heartbeats, and the data sets of
settlements, which every node keeps and serves. Training never waits for any of them, and the node
trains without them. A missing part is reported in one sentence, with its remedy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from daemon.chain.certified_totals import CertifiedTotals
from daemon.chain.client_setup import account_turn, open_chain
from daemon.chain.datasets import fetch_dataset, load_dataset, serve_datasets
from daemon.chain.heartbeater import AgentIdentity, Heartbeater
from daemon.chain.home_runs import HomeRun, owner_records_of
from daemon.chain.inference_recorder import InferenceRecorder
from daemon.chain.own_binding import own_binding
from daemon.chain.registrar import Registrar
from daemon.chain.rewards_watch import money_on_chain, watch_rewards
from daemon.chain.served_exchange import ServedExchange
from daemon.chain.served_work import ServedWork, reported_work
from daemon.config.settings import ChainConfig, OracleConfig
from daemon.oracle.reporter import OracleEndpoint, OracleReporter, ReportSigner
from daemon.system.offload import in_abandonable_thread
from daemon.wallet.password import Password
from protocol.chain.errors import ChainError
from protocol.chain.keccak import Address, account_bytes
from protocol.chain.port import Chain, Proposal
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.journal import ChainReport, JournalEvent, RewardsReport, Warned
from protocol.messages.membership import Recovery
from protocol.messages.offer import Binding
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest
from protocol.settlement.history import CertifiedHistory
from protocol.settlement.paid_work import PaidWork

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

# The interval between looks for a settlement's data set. A root's delay is longer.
LOOK_S = 60.0
LOCKED = "start with --password-file PATH, or HYPERGPU_PASSWORD_FILE=PATH"


async def in_chain_thread(work: Callable[[], object]) -> object:
    """Run the chain's blocking work in a thread that a leaving node does not wait for.

    Transactions in flight are on disk, and the next process sees them through.
    """
    return await in_abandonable_thread(work)


class Payee:
    """One node as a payee.

    The payee is made before the node's network starts. `prepare` does the blocking work.
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
        self._account: Address | None = None
        self._payout: Address | None = None
        self._chain: Chain | None = None
        self._served = ServedWork(home, lambda words: record(Warned(code="DAMAGED", message=words)))
        self.figures = CertifiedTotals(peer, self._pay_rules)
        settlement = self._run.manifest.settlement
        # The account of this node's stage, once `prepare` has signed or found it.
        self._own_binding: Binding | None = None
        paid = settlement is not UNSET and settlement.serving is not UNSET
        self._served_exchange = (
            ServedExchange(
                home,
                signed.run,
                self._run.manifest,
                lambda: self._own_binding,
                lambda words: record(Warned(code="DAMAGED", message=words)),
            )
            if paid
            else None
        )
        self._registrar = (
            None if settlement is UNSET else Registrar(settlement, peer, record, time.time)
        )

    def _pay_rules(self) -> PaidWork | None:
        """Return what decides about pay; None in runs where all that is listed is paid."""
        if self._run.manifest.rules < RULES_4:
            return None
        return PaidWork(self._run.run, self._run.manifest, self._recoveries())

    def _recoveries(self) -> Mapping[Digest, Recovery]:
        """Return the owner's recoveries that this home knows, by name."""
        known = owner_records_of(self._home, self._run).recoveries
        return CertifiedHistory(self._run.run, (), known).recoveries

    @property
    def wanted(self) -> bool:
        """Whether the run names a chain."""
        return self._run.manifest.chain != "none"

    def prepare(self) -> Binding | None:
        """Unlock the wallet, and return the binding for this node's offers.

        Blocks for about two seconds. Problems that the user can solve are reported, not raised.
        """
        if not self.wanted:
            return None
        # Late, since eth-account takes half a second to import, and only paid runs need it.
        from daemon.wallet import files  # noqa: PLC0415

        profile = self._run.manifest.chain
        try:
            if not files.has_wallet(self._home):
                self._report(
                    profile,
                    "none",
                    "this home has no wallet; type: hypergpud wallet new, then start again",
                )
                return None
            info = files.wallet_info(self._home)
            self._account, self._payout = info.address, info.payout
            if self._password is not None:
                self._wallet = files.unlock(self._home, self._password)
            settlement = self._run.manifest.settlement
            binding = (
                None
                if settlement is UNSET
                else own_binding(
                    self._home, self._wallet, self._peer, settlement, account_bytes(info.payout)
                )
            )
        except UserError as error:
            self._report(
                profile,
                "locked" if error.exit_code == 5 else "none",
                f"{error.what} {error.why}".strip(),
            )
            return None
        if self._wallet is None:
            self._report(profile, "locked", LOCKED)
        elif not self._settings.rpc:
            self._report(
                profile,
                "none",
                "no endpoint of the chain is known; "
                'write rpc = ["https://..."] under [chain] in config.toml',
            )
        else:
            self._report(
                profile,
                "waiting",
                "not registered with the chain yet; this happens when training begins",
            )
        self._own_binding = binding
        return binding

    def serve(self, network: Network, offload: Offload) -> None:
        """Serve data sets and answer challenges. Must be called before the network starts."""
        if self.wanted:
            serve_datasets(network, self._home, offload)
        if self._served_exchange is not None:
            self._served_exchange.serve(network, offload)
        if self._registrar is not None:
            self._registrar.serve(network, lambda: self._wallet)

    def left_out(self, peer: PeerId) -> str:
        """Say why a run of registered nodes excludes a peer; "" if it does not."""
        known = self._registrar.of(peer) if self._registrar is not None else None
        return (
            f"its registration is {known.state.value}: {known.reason}"
            if known is not None and known.barred
            else ""
        )

    async def run(self, network: Network, counted: trio.Event, offload: Offload) -> None:
        """Send heartbeats and fetch data sets until cancelled, if there is a chain or an oracle.

        `counted` is set once `figures` has the certificates that were on disk at the start. Nothing
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
            if self._served_exchange is not None:
                nursery.start_soon(self._served_exchange.run, network, offload)
            if self._registrar is not None:
                nursery.start_soon(self._registrar.run, network, self._opened, offload)
            nursery.start_soon(watch_rewards, self._look, self._record, in_chain_thread)
            if self._wallet is not None:
                nursery.start_soon(self._heartbeater().run)
                nursery.start_soon(self._record_served)

    def _heartbeater(self) -> Heartbeater:
        return Heartbeater(
            open_chain=self._opened,
            identity=AgentIdentity(name=self._name, payout=self._payout),
            figures=lambda: self.figures.now,
            # An `Offload` whose threads may outlive the node.
            offload=in_chain_thread,  # type: ignore[arg-type]
            record=self._record,
            jitter=random.random,
            every_s=self._settings.heartbeat_s,
            turn=lambda: account_turn(self._home),
        )

    async def _record_served(self) -> None:
        """Record on the chain what this node's stages served, every hour."""
        recorder = InferenceRecorder(
            open_chain=self._opened,
            folder=self._home / "runs" / self._run.run.hex(),
            served=self._served.models,
            record=self._record,
            turn=lambda: account_turn(self._home),
        )
        await recorder.run(in_chain_thread)

    def _reporter(self, wallet: UnlockedWallet) -> OracleReporter:
        return OracleReporter(
            oracle=OracleEndpoint(url=self._oracle.url, legacy=self._oracle.legacy),
            signer=ReportSigner(wallet=wallet.address, sign=wallet.sign_text),
            folder=self._home / "runs" / self._run.run.hex(),
            figures=lambda: reported_work(self.figures.totals, self._served.models()),
            record=self._record,
        )

    def _look(self) -> RewardsReport:
        return money_on_chain(self._opened(), self._home, self._account)

    def _opened(self) -> Chain:
        if self._chain is None:
            self._chain = open_chain(self._settings, self._run.manifest, self._home, self._wallet)
        return self._chain

    async def _follow_settlements(self, network: Network, offload: Offload) -> None:
        """Fetch the data set of every root on the chain, and keep it."""
        while True:
            proposals = await in_chain_thread(self._proposals)
            assert isinstance(proposals, tuple)
            for proposal in proposals:
                try:
                    if await offload(partial(load_dataset, self._home, proposal.data)) is None:
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
            # The heartbeat reports the problem.
            return ()
        return tuple(one for one in (pool.active, pool.pending) if one is not None)

    def _report(self, profile: str, state: str, reason: str) -> None:
        self._record(ChainReport(profile=profile, state=state, reason=reason))
