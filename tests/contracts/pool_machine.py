"""A state machine of the reward pool: random calls beside a model of the money."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from contracts.abi import call_data
from contracts.artifacts import AGENT_REGISTRY, REWARD_POOL
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import dev_account, dev_key
from contracts.devnet.store import SqliteStore
from contracts.signers import signer_of
from protocol.chain.keccak import Address, account_bytes, address_of
from protocol.settlement.merkle_tree import SettlementTree
from tests.contracts.testnets import DELAY_S, EPOCH_S, START_S, genesis

NAMES = ("anna", "bert", "owner", "settler 0")
WORKERS = [dev_account(name) for name in NAMES]
COLD = {
    worker: address_of(bytes([0x77]) * 19 + bytes([number]))
    for number, worker in enumerate(WORKERS)
}
NAME_OF = dict(zip(WORKERS, NAMES, strict=True))
SETTLERS = ("settler 0", "settler 1", "settler 2")
GAS = 600_000


class Pool(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self.devnet = Devnet(genesis(), SqliteStore(None), lambda: float(self.now_s))
        self.start = self.devnet.head.block_number
        self.funded = self.paid = 0
        self.earned = dict.fromkeys(WORKERS, 0)
        self.claimed = dict.fromkeys(WORKERS, 0)
        self.tree: SettlementTree | None = None
        self.active: SettlementTree | None = None
        self.settled_epochs = 0
        self.epoch = -1
        self.votes: dict[str, bytes] = {}
        self.disputed: set[str] = set()
        self.pending = False
        self.ready_at_s = 0
        self.paused = False
        self.paused_at_s = 0

    # ---------------------------------------------------------------- sending

    def send(self, name: str, data: bytes, value: int = 0, to: Address = REWARD_POOL) -> bool:
        """Whether it succeeded."""
        signer = signer_of(dev_key(name))
        raw = signer.sign_transaction(
            {
                "chainId": self.devnet.chain_id,
                "nonce": self.devnet.nonce(account_bytes(signer.address)),
                "to": to,
                "data": data,
                "value": value,
                "gas": GAS,
                "maxFeePerGas": 10**11,
                "maxPriorityFeePerGas": 1,
            }
        ).raw_transaction
        found = self.devnet.submit(bytes(raw))
        self.now_s = self.devnet.mine().timestamp
        included = self.devnet.included(found)
        assert included is not None
        return bool(included.receipt.state_root == b"\x01")

    def ask(self, signature: str, *arguments: Any) -> int:
        data = call_data(signature, *arguments)
        answer = self.devnet.call(
            sender=bytes(20), to=account_bytes(REWARD_POOL), data=data, value=0, gas=GAS
        )
        return int.from_bytes(answer[:32], "big")

    # ---------------------------------------------------------------- rules

    @initialize(amount=st.integers(1, 3000))
    def fund_first(self, amount: int) -> None:
        """Name payout accounts that pay no fees, so that each balance is the sum of payments."""
        for worker, cold in COLD.items():
            assert self.send(
                NAME_OF[worker], call_data("set_payout(address)", cold), to=AGENT_REGISTRY
            )
        self.fund(amount)

    @rule(amount=st.integers(0, 2000))
    def fund(self, amount: int) -> None:
        assert self.send("owner", call_data("fund()"), amount) == (amount > 0)
        self.funded += amount

    @rule(more=st.lists(st.integers(0, 400), min_size=4, max_size=4))
    def certify_an_epoch(self, more: list[int]) -> None:
        if self.pending:
            return
        self.now_s += EPOCH_S
        self.devnet.mine()
        self.earned = {
            worker: self.earned[worker] + extra for worker, extra in zip(WORKERS, more, strict=True)
        }
        self.tree = SettlementTree(self.earned.items())
        self.epoch = (self.now_s - START_S) // EPOCH_S - 1

    @precondition(lambda self: self.tree is not None)
    @rule(who=st.sampled_from((*SETTLERS, "anna")), cheat=st.sampled_from((0, 0, 0, 1)))
    def propose(self, who: str, cheat: int) -> None:
        assert self.tree is not None
        total = self.tree.total + cheat
        data = call_data(
            "propose(uint256,bytes32,uint256,bytes32)", self.epoch, self.tree.root, total, bytes(32)
        )
        allowed = (
            not self.paused
            and who in SETTLERS
            and not self.pending
            and self.epoch >= self.settled_epochs
            and self.epoch >= 0
            and total >= (0 if self.active is None else self.active_total)
            and total <= self.funded
        )
        assert self.send(who, data) == allowed
        if allowed:
            self.votes[who] = data
            if sum(vote == data for vote in self.votes.values()) >= 2:
                self.pending, self.pending_tree, self.pending_total, self.pending_epoch = (
                    True,
                    self.tree,
                    total,
                    self.epoch,
                )
                self.ready_at_s = self.now_s + DELAY_S

    @rule(
        who=st.sampled_from((*SETTLERS, "owner", "anna")),
        late=st.sampled_from((False, False, False, True)),
    )
    def dispute(self, who: str, late: bool = False) -> None:
        """`late`: it names another total than the one that is pending."""
        in_time = (
            self.paused_at_s < self.ready_at_s if self.paused else self.now_s + 1 < self.ready_at_s
        )
        allowed = (
            self.pending and who != "anna" and in_time and who not in self.disputed and not late
        )
        named = (
            (self.pending_epoch, self.pending_tree.root, self.pending_total + late)
            if self.pending
            else (0, bytes(32), 0)
        )
        data = call_data(
            "dispute(uint256,bytes32,uint256,bytes32,string,bytes32)",
            *named,
            bytes(32),
            "no",
            bytes(32),
        )
        assert self.send(who, data) == allowed
        if allowed:
            self.pending = False
            self.votes.clear()
            self.disputed |= {who} - {"owner"}

    @rule()
    def wait_for_the_delay(self) -> None:
        self.now_s += DELAY_S
        self.devnet.mine()

    @rule()
    def activate(self) -> None:
        allowed = self.pending and not self.paused and self.now_s + 1 >= self.ready_at_s
        assert self.send("anna", call_data("activate()")) == allowed
        if allowed:
            self.active, self.active_total = self.pending_tree, self.pending_total
            self.settled_epochs = self.pending_epoch + 1
            self.pending = False
            self.votes.clear()
            self.disputed.clear()

    @precondition(lambda self: self.active is not None)
    @rule(
        who=st.sampled_from(WORKERS),
        cheat=st.sampled_from((0, 0, 0, 1, -1)),
        stranger=st.sampled_from((False, False, True)),
    )
    def claim(self, who: str, cheat: int, stranger: bool) -> None:
        assert self.active is not None
        total = self.active.totals[who]
        if total + cheat < 0:
            return
        due = total - self.claimed[who]
        data = call_data(
            "claim(address,uint256,bytes32[])", who, total + cheat, list(self.active.proof(who))
        )
        allowed = not self.paused and cheat == 0 and due > 0 and not stranger
        assert self.send("settler 1" if stranger else NAME_OF[who], data) == allowed
        if allowed:
            self.claimed[who] = total
            self.paid += due

    @rule(who=st.sampled_from(("owner", "owner", "anna")), wished=st.booleans())
    def pause(self, who: str, wished: bool) -> None:
        allowed = who == "owner" and wished != self.paused
        assert self.send(who, call_data("pause()" if wished else "unpause()")) == allowed
        if allowed and wished:
            self.paused_at_s = self.now_s
        elif allowed and self.ready_at_s > self.paused_at_s:
            self.ready_at_s += self.now_s - self.paused_at_s
        if allowed:
            self.paused = wished

    # ---------------------------------------------------------------- what must hold

    @invariant()
    def balance_is_funded_less_paid(self) -> None:
        assert self.devnet.balance(account_bytes(REWARD_POOL)) == self.funded - self.paid
        assert self.ask("claimed_total()") == self.paid <= self.funded
        for worker in WORKERS:
            assert (
                self.devnet.balance(account_bytes(COLD[worker]))
                == self.claimed[worker]
                <= self.earned[worker]
            )

    def teardown(self) -> None:
        """Check that each account gets its share, and that no settler can block the next root."""
        if self.tree is not None and 0 <= self.tree.total <= self.funded:
            self.activate_a_root_despite_disputes()
        if self.active is not None:
            if self.paused:
                assert self.send("owner", call_data("unpause()"))
            for worker, total in self.active.totals.items():
                if total > self.claimed[worker]:
                    data = call_data(
                        "claim(address,uint256,bytes32[])",
                        worker,
                        total,
                        list(self.active.proof(worker)),
                    )
                    assert self.send(NAME_OF[worker], data)
                assert self.devnet.balance(account_bytes(COLD[worker])) == total
        self.devnet.close()

    def activate_a_root_despite_disputes(self) -> None:
        if self.paused:
            self.pause("owner", False)
        held_up = 0
        while self.pending or self.epoch >= self.settled_epochs:
            if not self.pending:
                for settler in SETTLERS[:2]:
                    self.propose(settler, 0)
                if not self.pending:
                    # The contract refuses a total below the active one, as the model predicted.
                    return
            if "settler 2" not in self.disputed and self.now_s + 1 < self.ready_at_s:
                self.dispute("settler 2")
                held_up += 1
                continue
            self.now_s = max(self.now_s, self.ready_at_s)
            self.activate()
            break
        assert held_up <= 1
