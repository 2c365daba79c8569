"""`FakeChain`: one account's client of a chain in memory, with the contracts' rules in Python.

`ledger.py` makes the blocks. The property suite holds this and the real client on the real
contracts to the same behaviour and the same reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from contracts.calldata import name_word
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import ZERO_ADDRESS, Address
from protocol.chain.port import (
    NO_HASH,
    AgentStatus,
    ChainHead,
    Hash,
    InferenceRecord,
    PoolStatus,
    Proposal,
    RunStatus,
    SentTransaction,
    SettledTransaction,
)
from simulator.fakes.chain_rules import (
    apply_claim,
    apply_proposal,
    apply_record,
    check,
    check_covered,
    proves,
    start_next_attempt,
)
from simulator.fakes.ledger import Change, FakeChainState, FakeLedger
from simulator.fakes.transactions import FakeTransactions

HEARTBEAT_TIMEOUT_S = 300
MOST_SAMPLES = (1 << 53) - 1


class FakeChain:
    """A `protocol.chain.port.Chain` for one account.

    `sleep` moves the clock on while something waits.
    """

    profile = "hypergpu"

    def __init__(
        self,
        ledger: FakeLedger,
        account: Address,
        sleep: Callable[[float], None],
        *,
        chain_id: int = 1,
    ) -> None:
        self.account = account
        self._ledger = ledger
        self._chain_id = chain_id
        self._transactions = FakeTransactions(ledger, account, sleep)

    # ---------------------------------------------------------------- reading

    def _state(self) -> FakeChainState:
        self._ledger.look()
        return self._ledger.state

    def head(self) -> ChainHead:
        self._ledger.look()
        return self._ledger.head(self._chain_id)

    def agent(self, address: Address) -> AgentStatus:
        state = self._state()
        payout = state.payouts.get(address, address)
        found = state.agents.get(address)
        if found is None:
            return AgentStatus(address=address, payout=payout)
        active = self._ledger.now_s() <= found.last_heartbeat_s + HEARTBEAT_TIMEOUT_S
        return msgspec.structs.replace(
            found, active=active, payout=payout, rewards=state.claimed.get(address, 0)
        )

    def heard(self, accounts: Sequence[Address], since_s: int, until_s: int) -> frozenset[Address]:
        heard = self._state().heard
        return frozenset(
            each
            for each in accounts
            if any(since_s <= at_s < until_s for at_s in heard.get(each, ()))
        )

    def balance(self, address: Address) -> int:
        return self._state().balances.get(address, 0)

    def pool(self) -> PoolStatus:
        state = self._state()
        return PoolStatus(
            balance=state.pool,
            claimed=sum(state.claimed.values()),
            epoch=self._ledger.epoch(),
            epoch_s=self._ledger.epoch_s,
            epoch_ends_at_s=self._ledger.epoch_ends_at_s(),
            paused=state.paused,
            needed=self._ledger.needed,
            settlers=self._ledger.settlers,
            active=state.active,
            pending=state.pending,
            ready_at_s=state.ready_at_s(self._ledger.now_s()),
        )

    def run(self, run: Hash, owner: Address) -> RunStatus:
        return self._state().runs.get((owner, run), RunStatus(run=run))

    def claimed(self, address: Address) -> int:
        return self._state().claimed.get(address, 0)

    def claimable(self, address: Address, total: int, proof: Sequence[Hash]) -> int:
        state = self._state()
        if state.paused or not proves(state, address, total, proof):
            return 0
        return max(0, total - state.claimed.get(address, 0))

    # ---------------------------------------------------------------- who takes part

    def register(
        self,
        name: str,
        *,
        model: Hash = NO_HASH,
        capabilities: Sequence[Hash] = (),
        agent: Address | None = None,
    ) -> SentTransaction:
        who = agent or self.account

        def change(state: FakeChainState, at_s: int) -> None:
            check(who == self.account, "registry: not a sponsor")
            check(who not in state.agents, "registry: already registered")
            cut = name_word(name).rstrip(b"\0").decode()
            state.agents[who] = AgentStatus(
                address=who, registered=True, name=cut, last_heartbeat_s=at_s, registered_at_s=at_s
            )
            state.heard[who] = (at_s,)

        return self._send("register", who, change)

    def set_payout(self, payout: Address) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            check(payout != ZERO_ADDRESS, "registry: no payout")
            state.payouts[self.account] = payout

        return self._send("set_payout", payout, change)

    def heartbeat(
        self, samples: int, certificate: Hash, *, agent: Address | None = None
    ) -> SentTransaction:
        who = agent or self.account

        def change(state: FakeChainState, at_s: int) -> None:
            check(who == self.account, "registry: not a sponsor")
            check(who in state.agents, "registry: not registered")
            check(samples >= state.agents[who].samples, "registry: samples went back")
            check(samples <= MOST_SAMPLES, "registry: too many samples")
            state.agents[who] = msgspec.structs.replace(
                state.agents[who], samples=samples, certificate=certificate, last_heartbeat_s=at_s
            )
            state.heard[who] = (*state.heard[who], at_s)

        return self._send("heartbeat", who, change)

    def record_inference(self, record: InferenceRecord) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            apply_record(state, self.account, record, MOST_SAMPLES)

        return self._send("record_inference", f"{self.account} {record.subject}", change)

    # ---------------------------------------------------------------- the pool

    def propose(self, proposal: Proposal) -> SentTransaction:
        def change(state: FakeChainState, at_s: int) -> None:
            apply_proposal(state, at_s, self._ledger, self.account, proposal)

        return self._send("propose", proposal.subject, change)

    def dispute(self, proposal: Proposal, reason: str, evidence: Hash = NO_HASH) -> SentTransaction:
        def change(state: FakeChainState, at_s: int) -> None:
            check(
                self.account in (*self._ledger.settlers, self._ledger.owner),
                "pool: may not dispute",
            )
            check(state.pending is not None, "pool: no root is pending")
            check(state.pending == proposal, "pool: not the pending root")
            check(at_s < state.ready_at_s(at_s), "pool: dispute is over")
            if self.account != self._ledger.owner:
                check(self.account not in state.disputed, "pool: dispute is used up")
                state.disputed.add(self.account)
            start_next_attempt(state)

        return self._send("dispute", proposal.subject, change)

    def activate(self) -> SentTransaction:
        def change(state: FakeChainState, at_s: int) -> None:
            check(not state.paused, "pausable: paused")
            if state.pending is None:
                raise ChainRefused("pool: no root is pending")
            check(at_s >= state.ends_at_s, "pool: delay is not over")
            check_covered(state, state.pending)
            state.active = state.pending
            state.disputed.clear()
            start_next_attempt(state)

        return self._send("activate", "", change)

    def claim(self, address: Address, total: int, proof: Sequence[Hash]) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            apply_claim(state, self.account, address, total, proof)

        return self._send("claim", address, change)

    def fund(self, amount: int) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            check(amount > 0, "pool: nothing sent")
            check(state.balances.get(self.account, 0) >= amount, "insufficient funds for transfer")
            state.balances[self.account] -= amount
            state.pool += amount

        return self._send("fund", str(amount), change)

    def pause(self, paused: bool) -> SentTransaction:
        def change(state: FakeChainState, at_s: int) -> None:
            check(self.account == self._ledger.owner, "ownable: not the owner")
            check(
                state.paused != paused,
                "pausable: paused" if paused else "pausable: not paused",
            )
            if paused:
                state.paused_at_s = at_s
            else:
                state.ends_at_s = state.ready_at_s(at_s)
            state.paused = paused

        return self._send("pause", str(paused), change)

    # ---------------------------------------------------------------- runs

    def create_run(self, run: Hash, manifest: Hash) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            check((self.account, run) not in state.runs, "sessions: already created")
            state.runs[self.account, run] = RunStatus(
                run=run, state="created", owner=self.account, manifest=manifest
            )

        return self._send("create_run", run.hex(), change)

    def activate_run(self, run: Hash) -> SentTransaction:
        return self._move("activate_run", run, ("created",), "sessions: not created", "active")

    def complete_run(self, run: Hash, certificate: Hash) -> SentTransaction:
        return self._move(
            "complete_run", run, ("active",), "sessions: not active", "completed", certificate
        )

    def cancel_run(self, run: Hash, reason: str) -> SentTransaction:
        return self._move(
            "cancel_run", run, ("created", "active"), "sessions: already ended", "cancelled"
        )

    def _move(
        self,
        kind: str,
        run: Hash,
        out_of: tuple[str, ...],
        otherwise: str,
        to: str,
        certificate: Hash = NO_HASH,
    ) -> SentTransaction:
        def change(state: FakeChainState, _: int) -> None:
            named = self.account, run
            check(named in state.runs, "sessions: no such run")
            check(state.runs[named].state in out_of, otherwise)
            check(to != "completed" or certificate != NO_HASH, "sessions: no certificate")
            state.runs[named] = msgspec.structs.replace(
                state.runs[named], state=to, certificate=certificate
            )

        return self._send(kind, run.hex(), change)

    def pending(self) -> tuple[SentTransaction, ...]:
        return self._transactions.pending()

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        return self._transactions.reconcile()

    def wait(self, sent: SentTransaction, timeout_s: float) -> SettledTransaction:
        return self._transactions.wait(sent, timeout_s)

    def _send(self, kind: str, subject: str, change: Change) -> SentTransaction:
        return self._ledger.send(self.account, kind, subject, change)
