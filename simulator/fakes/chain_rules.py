"""The rules of the contracts that several transactions of the fake chain share."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import Address
from protocol.chain.port import NO_HASH, Hash, InferenceRecord, Proposal
from protocol.settlement.merkle_tree import leads_to, leaf_of
from simulator.fakes.ledger import FakeChainState, FakeLedger


def check(holds: bool, reason: str) -> None:
    if not holds:
        raise ChainRefused(reason)


def check_covered(state: FakeChainState, proposal: Proposal) -> None:
    check(proposal.total <= state.pool + sum(state.claimed.values()), "pool: not covered")


def start_next_attempt(state: FakeChainState) -> None:
    state.pending, state.ends_at_s = None, 0
    state.votes.clear()


def proves(state: FakeChainState, account: Address, total: int, proof: Sequence[Hash]) -> bool:
    return state.active is not None and leads_to(state.active.root, leaf_of(account, total), proof)


def apply_proposal(
    state: FakeChainState, at_s: int, ledger: FakeLedger, account: Address, proposal: Proposal
) -> None:
    """Apply a settler's vote for a root. Raises `ChainRefused` as the contract reverts."""
    check(not state.paused, "pausable: paused")
    check(account in ledger.settlers, "pool: not a settler")
    check(state.pending is None, "pool: another root is pending")
    check(proposal.root != NO_HASH, "pool: no root")
    check(
        state.active is None or proposal.epoch > state.active.epoch,
        "pool: epoch already settled",
    )
    check(proposal.epoch < ledger.epoch(), "pool: epoch is not over")
    check(
        state.active is None or proposal.total >= state.active.total,
        "pool: total went back",
    )
    check_covered(state, proposal)
    state.votes[account] = proposal
    if sum(vote == proposal for vote in state.votes.values()) >= ledger.needed:
        state.pending, state.ends_at_s = proposal, at_s + ledger.delay_s


def apply_claim(
    state: FakeChainState, account: Address, address: Address, total: int, proof: Sequence[Hash]
) -> None:
    """Pay what an account may claim. Raises `ChainRefused` as the contract reverts."""
    check(address == account, "claim: not the account or its sponsor")
    check(proves(state, address, total, proof), "pool: wrong proof")
    check(not state.paused, "pausable: paused")
    amount = total - state.claimed.get(address, 0)
    check(amount > 0, "pool: nothing to claim")
    covered = (
        state.active is not None and sum(state.claimed.values()) + amount <= state.active.total
    )
    check(covered, "pool: beyond the root's total")
    payout = state.payouts.get(address, address)
    state.claimed[address] = total
    state.pool -= amount
    state.balances[payout] = state.balances.get(payout, 0) + amount


def apply_record(
    state: FakeChainState, account: Address, record: InferenceRecord, most_tokens: int
) -> None:
    """Record what an account served. Raises `ChainRefused` as the contract reverts."""
    check(record.tokens != 0, "inference: no tokens")
    check(record.tokens <= most_tokens, "inference: too many tokens")
    check(account in state.agents, "inference: not registered")
    name = f"{account} {record.subject}"
    check(name not in state.served, "inference: recorded already")
    state.served.add(name)
