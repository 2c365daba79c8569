"""A demo that pays: a chain of its own, a wallet for each volunteer, and at the end one settlement
that everybody checks and claims.

Nothing here is pretended but time: the chain's clock is set forward past the epoch and past the
delay in which a root can be disputed. Daemons register, beat and fetch the data set by themselves;
settling and claiming is what `hypergpud settle` and `hypergpud rewards` do.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from daemon.chain.client_setup import account_turn, open_chain
from daemon.chain.datasets import keep_dataset, load_dataset
from daemon.chain.home_runs import certificates_of, settled_run
from daemon.chain.rewards import claim, verify
from daemon.chain.settlement import draft_settlement, epoch_to_settle
from daemon.config.settings import ChainConfig
from daemon.demo.process import DemoProcess, Lifeline
from daemon.demo.result import ClaimedReward
from daemon.demo.stop_request import StopRequest
from daemon.wallet import files
from daemon.wallet.keystore import UnlockedWallet, new_key, wallet_of
from protocol.chain.errors import ChainError, ChainRefused
from protocol.chain.keccak import Address
from protocol.chain.port import Chain, SentTransaction
from protocol.errors import UserError
from protocol.status.figures import tokens

POOL = 1_000 * 10**18  # base units
EPOCH_S, DELAY_S = 3600, 600
BLOCK_S = 0  # a block for each transaction, at once
# A demo is over before a real beat would come.
HEARTBEAT_S = 2.0
# Wallets that live for a minute; a real one takes a second to open.
QUICK_SCRYPT_N = 1 << 12
# Py-evm takes 3 s to import on an idle machine, and anvil may take 60 s beside that on a busy one.
UP_S = 90.0
# For a transaction or a data set, on a machine that is busy training.
PATIENCE_S = 120.0
LOOK_S = 0.5
CHAIN_ID = 4195600
REWARD_POOL = "0x0000000000000000000000000000000000001000"
TERMS = f'\n[settlement]\nchain_id = {CHAIN_ID}\ncontract = "{REWARD_POOL}"\n\n[settlement.rules]\nlock_epochs = 0\n'

T = TypeVar("T")


class SettlementDemo:
    """The money of one demo. Starts nothing before `begin`."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        leave: StopRequest,
        tell: Callable[[str], None],
        *,
        anvil: bool = False,
    ) -> None:
        self._root, self._leave, self._tell, self._anvil = root, leave, tell, anvil
        self._wallets: dict[str, UnlockedWallet] = {name: wallet_of(new_key()) for name in names}
        # cold: nobody here keeps these keys.
        self._payouts: dict[str, Address] = {name: wallet_of(new_key()).address for name in names}
        self._settler = next(iter(names))
        self._password = root / "password"
        self._url = ""
        self.devnet = DemoProcess("devnet", root / "devnet")

    def begin(self, lifeline: Lifeline) -> None:
        """Start the chain, make the wallets, fill the pool. Raises `UserError("DEMO_CHAIN")`."""
        settler = self._wallets[self._settler].address
        arguments = [
            "devnet",
            "--in-memory",
            "--port",
            "0",
            "--block-time",
            str(BLOCK_S),
            "--needed",
            "1",
            "--settler",
            settler,
        ]
        arguments += ["--epoch", str(EPOCH_S), "--delay", str(DELAY_S)]
        if self._anvil:
            arguments.append("--anvil")
        for wallet in self._wallets.values():
            arguments += ["--fund", wallet.address]
        self.devnet.start(lifeline, {}, arguments)
        handle = os.open(self._password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(os.urandom(16).hex())
        password = self._password.read_text(encoding="ascii")
        for name, wallet in self._wallets.items():
            home = self._root / name
            files.create(home, wallet.private_key(), password, scrypt_n=QUICK_SCRYPT_N)
            files.set_payout(home, self._payouts[name])
        if not self._until(self._answers, UP_S) and not self._leave.is_set():
            raise UserError(
                "DEMO_CHAIN",
                "The demo's chain did not come up.",
                why=f"it {self.devnet.ending}:\n{self.devnet.tail()}",
            )

    def run_file(self, text: str) -> Path:
        """The run with its settlement, as a file.

        Raises `UserError("MANIFEST")` for a run that names a chain of its own.
        """
        path = self._root / "run.toml"
        path.write_text('chain = "hypergpu"\n' + text + TERMS, encoding="utf-8")
        return path

    def settings(self) -> dict[str, object]:
        """A daemon's `[chain]`."""
        return {"rpc": [self._url], "confirmations": 1, "heartbeat_s": HEARTBEAT_S}

    def arguments(self) -> list[str]:
        """Of `hypergpud start`."""
        return ["--password-file", str(self._password)]

    def pay(self, names: Sequence[str]) -> tuple[ClaimedReward, ...]:
        """Settle what was certified, while the daemons `names` still run, and let each of them
        claim.

        Raises `UserError`, `ChainError`.
        """
        chains = {name: self._open(name) for name in names}
        settler = chains.get(self._settler)
        if settler is None:
            raise UserError("DEMO_CHAIN", f"{self._settler}, which settles, is gone.")
        self._see(settler, lambda: settler.fund(POOL))
        for name, chain in chains.items():
            if self._until(lambda chain=chain: chain.agent(chain.account).samples or None) is None:
                raise UserError(
                    "DEMO_CHAIN", f"{name} told the chain nothing within {PATIENCE_S:.0f} s."
                )
        homes = {name: self._root / name for name in names}
        run = settled_run(homes[self._settler], None)
        held = [
            {one.hash for one in certificates_of(home, run, self._tell)} for home in homes.values()
        ]
        certificates = [
            one
            for one in certificates_of(homes[self._settler], run, self._tell)
            if all(one.hash in hashes for hashes in held)
        ]
        self._later(EPOCH_S)
        made = draft_settlement(
            settler,
            run.run,
            run.manifest,
            certificates,
            None,
            epoch=epoch_to_settle(settler.pool()),
            pool=POOL,
        )
        name = keep_dataset(homes[self._settler], made.dataset)
        self._see(settler, lambda: settler.propose(made.proposal))
        self._tell(
            f"Epoch {made.proposal.epoch} is proposed: {len(certificates)} certificates, {tokens(made.proposal.total)} tokens."
        )
        self._later(DELAY_S)
        self._see(settler, settler.activate)
        return tuple(self._claim(who, chain, homes[who], name) for who, chain in chains.items())

    def _claim(self, name: str, chain: Chain, home: Path, dataset: bytes) -> ClaimedReward:
        if self._until(lambda: load_dataset(home, dataset)) is None:
            raise UserError(
                "DEMO_CHAIN",
                f"{name} did not get the settlement's data set from the swarm within {PATIENCE_S:.0f} s.",
            )
        verified = all(
            check.agrees for check in verify(chain, home, settled_run(home, None), self._tell)
        )
        agent = chain.agent(chain.account)
        with account_turn(home):
            claim(chain, home, chain.account, dry_run=False)
        amount = chain.balance(self._payouts[name])
        paid = ClaimedReward(
            name=name,
            account=chain.account,
            payout=self._payouts[name],
            samples=agent.samples,
            amount=str(amount),
            verified=verified,
        )
        self._tell(
            f"{name}: {tokens(amount)} tokens claimed to {paid.payout}, after checking the root against its own certificates."
        )
        return paid

    def _open(self, name: str) -> Chain:
        run = settled_run(self._root / name, None)
        settings = msgspec.convert(self.settings(), ChainConfig)
        return open_chain(settings, run.manifest, self._root / name, self._wallets[name])

    def _see(self, settler: Chain, send: Callable[[], SentTransaction]) -> None:
        with account_turn(self._root / self._settler):
            settled = settler.wait(send(), PATIENCE_S)
        if not settled.done:
            raise ChainRefused(settled.reason)

    def _later(self, seconds: int) -> None:
        """The chain's clock, set forward."""
        self._ask("evm_increaseTime", seconds)
        self._ask("evm_mine")

    def _answers(self) -> bool | None:
        """Whether the chain answers; None where it may do so later."""
        self._url = self._url or self.devnet.url()
        if not self._url:
            return None if self.devnet.alive else False
        try:
            return bool(self._ask("eth_chainId"))
        except ChainError:
            return None

    def _ask(self, method: str, *parameters: object) -> object:
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        ).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10.0) as answer:
                found: object = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ChainError(f"the demo's chain did not answer {method}: {error}") from None
        return found.get("result") if isinstance(found, dict) else None

    def _until(self, look: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T | None:
        """What `look` finds in the end; None when it does not, or the demo is left."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            if self._leave.wait(LOOK_S) and patience_s == UP_S:
                return None
        return None
