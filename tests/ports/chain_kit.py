"""What the suite of `Chain` needs: a chain with the levers of a test, and common steps."""

from __future__ import annotations

from typing import Protocol

from protocol.chain.keccak import Address, address_of
from protocol.chain.port import Chain, Proposal, SentTransaction, SettledTransaction
from protocol.settlement.merkle_tree import SettlementTree

EPOCH_S, DELAY_S = 1000, 100
OWNER, SETTLERS, ANNA, BERT = "owner", ("settler 0", "settler 1", "settler 2"), "anna", "bert"
CERTIFICATE, RUN = b"c" * 32, b"r" * 32
COLD = address_of(b"cold wallet, watched")


class LocalTestnet(Protocol):
    """A chain and the levers of a test."""

    def chain(self, name: str) -> Chain: ...

    def account(self, name: str) -> Address: ...

    def advance(self, seconds: int) -> None:
        """Move the chain's clock on, and make a block."""

    def pause_mining(self, paused: bool) -> None:
        """Stop or resume the making of blocks. The chain still answers."""

    def set_unreachable(self, unreachable: bool) -> None:
        """Make the chain unreachable or reachable."""


def done(chain: Chain, sent: SentTransaction) -> SettledTransaction:
    ended = chain.wait(sent, 30)
    assert ended.done, ended.reason
    assert ended.sent == sent
    return ended


def fund(testnet: LocalTestnet, amount: int) -> None:
    owner = testnet.chain(OWNER)
    done(owner, owner.fund(amount))


def proposal_of(testnet: LocalTestnet, totals: dict[str, int]) -> tuple[SettlementTree, Proposal]:
    tree = SettlementTree((testnet.account(name), total) for name, total in totals.items())
    epoch = testnet.chain(OWNER).pool().epoch - 1
    return tree, Proposal(epoch=epoch, root=tree.root, total=tree.total, data=b"d" * 32)


def propose(testnet: LocalTestnet, totals: dict[str, int]) -> SettlementTree:
    """Propose a root in the next epoch, by enough settlers to make it pending."""
    testnet.advance(EPOCH_S)
    tree, proposal = proposal_of(testnet, totals)
    for name in SETTLERS[:2]:
        settler = testnet.chain(name)
        done(settler, settler.propose(proposal))
    return tree


def settle(testnet: LocalTestnet, totals: dict[str, int]) -> SettlementTree:
    """Propose a root and activate it."""
    tree = propose(testnet, totals)
    testnet.advance(DELAY_S)
    anna = testnet.chain(ANNA)
    done(anna, anna.activate())
    return tree
