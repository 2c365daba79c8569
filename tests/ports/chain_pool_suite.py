"""Roots and claims of the reward pool."""

from __future__ import annotations

import pytest

from protocol.chain.errors import ChainRefused
from protocol.chain.port import NO_HASH, Proposal
from tests.ports.chain_kit import (
    ANNA,
    BERT,
    COLD,
    DELAY_S,
    EPOCH_S,
    SETTLERS,
    LocalTestnet,
    done,
    fund,
    proposal_of,
    settle,
)


class ChainPoolSuite:
    """Part of `ChainSuite`."""

    def test_a_settled_epoch_is_paid_once_to_the_payout(self, testnet: LocalTestnet) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        done(anna, anna.set_payout(COLD))
        fund(testnet, 1000)
        tree = settle(testnet, {ANNA: 300, BERT: 700})
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 300
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
        assert (
            bert.balance(COLD),
            bert.claimed(anna.account),
            bert.pool().balance,
            bert.pool().claimed,
        ) == (300, 300, 700, 300)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 0
        with pytest.raises(ChainRefused, match="pool: nothing to claim"):
            anna.claim(anna.account, 300, tree.proof(anna.account))

    def test_a_stranger_does_not_claim_before_the_payout_is_changed(
        self, testnet: LocalTestnet
    ) -> None:
        """A stranger who sees that a payout is about to change could claim to the old one."""
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        fund(testnet, 1000)
        tree = settle(testnet, {ANNA: 300, BERT: 700})
        with pytest.raises(ChainRefused, match="not the account or its sponsor"):
            bert.claim(anna.account, 300, tree.proof(anna.account))
        done(anna, anna.set_payout(COLD))
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
        assert anna.balance(COLD) == 300

    def test_the_next_root_pays_the_difference(self, testnet: LocalTestnet) -> None:
        anna = testnet.chain(ANNA)
        done(anna, anna.set_payout(COLD))
        fund(testnet, 1000)
        tree = settle(testnet, {ANNA: 300, BERT: 100})
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
        tree = settle(testnet, {ANNA: 450, BERT: 550})
        done(anna, anna.claim(anna.account, 450, tree.proof(anna.account)))
        assert (anna.balance(COLD), anna.claimed(anna.account), anna.pool().balance) == (
            450,
            450,
            550,
        )

    def test_a_wrong_total_account_or_proof_is_refused(self, testnet: LocalTestnet) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        fund(testnet, 1000)
        with pytest.raises(ChainRefused, match="pool: wrong proof"):
            anna.claim(anna.account, 0, ())
        tree = settle(testnet, {ANNA: 300, BERT: 700})
        own = tree.proof(anna.account)
        for chain, total, proof in (
            (anna, 301, own),
            (bert, 300, own),
            (anna, 300, ()),
            (anna, 300, (NO_HASH,)),
        ):
            assert chain.claimable(chain.account, total, proof) == 0
            with pytest.raises(ChainRefused, match="pool: wrong proof"):
                chain.claim(chain.account, total, proof)

    def test_a_root_needs_enough_settlers_that_propose_the_same(
        self, testnet: LocalTestnet
    ) -> None:
        first, second, anna = (
            testnet.chain(SETTLERS[0]),
            testnet.chain(SETTLERS[1]),
            testnet.chain(ANNA),
        )
        fund(testnet, 1000)
        testnet.advance(EPOCH_S)
        _, proposal = proposal_of(testnet, {ANNA: 300})
        _, other = proposal_of(testnet, {ANNA: 301})
        with pytest.raises(ChainRefused, match="pool: not a settler"):
            anna.propose(proposal)
        done(first, first.propose(proposal))
        done(second, second.propose(other))
        assert first.pool().pending is None
        # A settler may change its proposal.
        done(second, second.propose(proposal))
        pool = first.pool()
        assert pool.pending == proposal
        assert first.head().at_s < pool.ready_at_s <= first.head().at_s + DELAY_S
        with pytest.raises(ChainRefused, match="pool: another root is pending"):
            first.propose(other)

    def test_two_proposals_of_one_settler_count_once(self, testnet: LocalTestnet) -> None:
        first = testnet.chain(SETTLERS[0])
        fund(testnet, 1000)
        testnet.advance(EPOCH_S)
        _, proposal = proposal_of(testnet, {ANNA: 300})
        done(first, first.propose(proposal))
        done(first, first.propose(proposal))
        assert first.pool().pending is None

    def test_a_total_above_the_pool_is_refused(self, testnet: LocalTestnet) -> None:
        settler = testnet.chain(SETTLERS[0])
        fund(testnet, 1000)
        testnet.advance(EPOCH_S)
        _, proposal = proposal_of(testnet, {ANNA: 1001})
        with pytest.raises(ChainRefused, match="pool: not covered"):
            settler.propose(proposal)

    def test_an_epoch_is_settled_once_after_its_end(self, testnet: LocalTestnet) -> None:
        settler = testnet.chain(SETTLERS[0])
        fund(testnet, 1000)
        settle(testnet, {ANNA: 300})
        tree, again = proposal_of(testnet, {ANNA: 400})
        with pytest.raises(ChainRefused, match="pool: epoch already settled"):
            settler.propose(again)
        with pytest.raises(ChainRefused, match="pool: epoch is not over"):
            settler.propose(Proposal(epoch=settler.pool().epoch, root=tree.root, total=tree.total))
        testnet.advance(EPOCH_S)
        _, less = proposal_of(testnet, {ANNA: 299})
        with pytest.raises(ChainRefused, match="pool: total went back"):
            settler.propose(less)
