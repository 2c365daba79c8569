"""A demo that pays: a chain, a wallet for each daemon, and one settlement at the end.

Only time is simulated: the demo moves the chain's clock past the epoch, and past the delay in which
a root can be disputed. The daemons register, send heartbeats and fetch the data set by themselves.
The demo settles and claims with the code of `hypergpud settle` and `hypergpud rewards`.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
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

# Base units.
POOL = 1_000 * 10**18
EPOCH_S, DELAY_S = 3600, 600
# A block for each transaction, at once.
BLOCK_S = 0
# A demo is shorter than the interval of a real heartbeat.
HEARTBEAT_S = 2.0
# These wallets live for a minute. A real wallet takes a second to unlock.
QUICK_SCRYPT_N = 1 << 12
# py-evm takes 3 s to import on an idle machine. anvil takes up to 60 s more on a busy one.
UP_TIMEOUT_S = 90.0
# For a transaction or a data set, on a machine that is busy training.
WAIT_TIMEOUT_S = 120.0
LOOK_S = 0.5
CHAIN_ID = 4195600
REWARD_POOL = "0x0000000000000000000000000000000000001000"
TERMS = (
    f"\n[settlement]\nchain_id = {CHAIN_ID}\ncontract ="
    f' "{REWARD_POOL}"\n\n[settlement.rules]\nlock_epochs = 0\n'
)

T = TypeVar("T")


class SettlementDemo:
    """The chain, wallets and settlement of one demo. Starts nothing before `begin`."""

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        stop: StopRequest,
        tell: Callable[[str], None],
        *,
        anvil: bool = False,
    ) -> None:
        self._root, self._stop, self._tell, self._anvil = root, stop, tell, anvil
        self._wallets: dict[str, UnlockedWallet] = {name: wallet_of(new_key()) for name in names}
        # Cold addresses: their keys are not kept.
        self._payouts: dict[str, Address] = {name: wallet_of(new_key()).address for name in names}
        self._settler = next(iter(names))
        self._password = root / "password"
        self._url = ""
        self.pool = POOL
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
        if not self._until(self._answers, UP_TIMEOUT_S) and not self._stop.is_set():
            raise UserError(
                "DEMO_CHAIN",
                "The demo's chain did not start.",
                why=f"it {self.devnet.ending}:\n{self.devnet.tail()}",
            )

    def run_file(self, text: str) -> Path:
        """Write the run with its settlement, and return the path."""
        path = self._root / "run.toml"
        path.write_text('chain = "hypergpu"\n' + text + TERMS, encoding="utf-8")
        return path

    def settings(self) -> dict[str, object]:
        """Return the `[chain]` of a daemon."""
        return {"rpc": [self._url], "confirmations": 1, "heartbeat_s": HEARTBEAT_S}

    def arguments(self) -> list[str]:
        """Arguments of `hypergpud start`."""
        return ["--password-file", str(self._password)]

    def pay(self, names: Sequence[str]) -> tuple[ClaimedReward, ...]:
        """Settle what was certified, while the daemons `names` run, and let each of them claim.

        Raises `UserError`, `ChainError`.
        """
        chains = {name: self._open(name) for name in names}
        settler = chains.get(self._settler)
        if settler is None:
            raise UserError("DEMO_CHAIN", f"The settler {self._settler} has ended.")
        self._send_and_wait(settler, lambda: settler.fund(POOL))
        for name, chain in chains.items():
            if self._until(partial(_reported_samples, chain)) is None:
                raise UserError(
                    "DEMO_CHAIN",
                    f"{name} sent the chain no heartbeat within {WAIT_TIMEOUT_S:.0f} s.",
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
        self._move_clock(EPOCH_S)
        made = draft_settlement(
            settler,
            run.run,
            run.manifest,
            certificates,
            None,
            epoch=epoch_to_settle(settler.pool()),
            pool=POOL,
        )
        dataset = keep_dataset(homes[self._settler], made.dataset)
        self._send_and_wait(settler, lambda: settler.propose(made.proposal))
        self._tell(
            f"Epoch {made.proposal.epoch} is proposed: {len(certificates)} certificates,"
            f" {tokens(made.proposal.total)} tokens."
        )
        self._move_clock(DELAY_S)
        self._send_and_wait(settler, settler.activate)
        return tuple(self._claim(who, chain, homes[who], dataset) for who, chain in chains.items())

    def _claim(self, name: str, chain: Chain, home: Path, dataset: bytes) -> ClaimedReward:
        if self._until(lambda: load_dataset(home, dataset)) is None:
            raise UserError(
                "DEMO_CHAIN",
                f"{name} did not fetch the settlement's data set within {WAIT_TIMEOUT_S:.0f} s.",
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
            f"{name}: {tokens(amount)} tokens claimed to {paid.payout}, after it verified the root"
            " with its own certificates."
        )
        return paid

    def _open(self, name: str) -> Chain:
        run = settled_run(self._root / name, None)
        settings = msgspec.convert(self.settings(), ChainConfig)
        return open_chain(settings, run.manifest, self._root / name, self._wallets[name])

    def _send_and_wait(self, settler: Chain, send: Callable[[], SentTransaction]) -> None:
        with account_turn(self._root / self._settler):
            settled = settler.wait(send(), WAIT_TIMEOUT_S)
        if not settled.done:
            raise ChainRefused(settled.reason)

    def _move_clock(self, seconds: int) -> None:
        """Move the chain's clock forward."""
        self._ask("evm_increaseTime", seconds)
        self._ask("evm_mine")

    def _answers(self) -> bool | None:
        """True if the chain answers, False if its process ended, None to try again later."""
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

    def _until(self, look: Callable[[], T | None], timeout_s: float = WAIT_TIMEOUT_S) -> T | None:
        """Call `look` until it finds something. None after the timeout."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            if self._stop.wait(LOOK_S) and timeout_s == UP_TIMEOUT_S:
                return None
        return None


def _reported_samples(chain: Chain) -> int | None:
    """Return the samples that the account's heartbeats reported; None before the first."""
    return chain.agent(chain.account).samples or None
