"""Disputes, delays and pauses of the reward pool."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.chain.errors import ChainRefused
from protocol.chain.port import Proposal
from tests.ports.chain_kit import (
    ANNA,
    DELAY_S,
    OWNER,
    SETTLERS,
    LocalTestnet,
    done,
    fund,
    proposal_of,
    propose,
    settle,
)


class ChainDisputeSuite:
    """Part of `ChainSuite`."""

    def test_a_disputed_root_falls_back_to_the_last_one(self, testnet: LocalTestnet) -> None:
        anna, owner, settler = testnet.chain(ANNA), testnet.chain(OWNER), testnet.chain(SETTLERS[2])
        fund(testnet, 1000)
        tree = settle(testnet, {ANNA: 300})
        good = anna.pool().active
        assert good is not None
        propose(testnet, {ANNA: 900})
        wrong = anna.pool().pending
        assert wrong is not None
        with pytest.raises(ChainRefused, match="pool: may not dispute"):
            anna.dispute(wrong, "I do not like it")
        done(settler, settler.dispute(wrong, "900 is not what the certificates say", b"e" * 32))
        assert (anna.pool().active, anna.pool().pending) == (good, None)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 300
        with pytest.raises(ChainRefused, match="pool: no root is pending"):
            owner.dispute(wrong, "again")
        # Votes before the dispute count no more, the same epoch can be settled again.
        propose(testnet, {ANNA: 400})
        assert anna.pool().pending is not None

    def test_a_late_dispute_does_not_hit_the_corrected_root_of_the_same_epoch(
        self, testnet: LocalTestnet
    ) -> None:
        owner, late = testnet.chain(OWNER), testnet.chain(SETTLERS[2])
        fund(testnet, 1000)
        propose(testnet, {ANNA: 900})
        wrong = owner.pool().pending
        assert wrong is not None
        done(owner, owner.dispute(wrong, "900 is not what the certificates say"))
        tree, _ = proposal_of(testnet, {ANNA: 400})
        right = replace(wrong, root=tree.root, total=tree.total)
        for name in SETTLERS[:2]:
            settler = testnet.chain(name)
            done(settler, settler.propose(right))
        assert owner.pool().pending == right
        for named in (
            wrong,
            replace(right, data=wrong.root),
            replace(right, total=900),
            replace(right, epoch=right.epoch + 1),
        ):
            with pytest.raises(ChainRefused, match="pool: not the pending root"):
                late.dispute(named, "late")
        assert owner.pool().pending == right
        done(late, late.dispute(right, "this root"))

    def test_a_settler_that_disputes_every_root_delays_payment_once(
        self, testnet: LocalTestnet
    ) -> None:
        anna, owner = testnet.chain(ANNA), testnet.chain(OWNER)
        bad, other = testnet.chain(SETTLERS[2]), testnet.chain(SETTLERS[0])
        fund(testnet, 1000)
        # One settler may dispute each root once.
        for total in (300, 400):
            propose(testnet, {ANNA: total})
            pending = anna.pool().pending
            assert pending is not None
            done(bad, bad.dispute(pending, "no"))
            # The same root an epoch later allows no new dispute.
            propose(testnet, {ANNA: total})
            pending = anna.pool().pending
            assert pending is not None
            with pytest.raises(ChainRefused, match="pool: dispute is used up"):
                bad.dispute(pending, "no")
            # Somebody else has one, and the owner has more than one.
            if total == 400:
                done(other, other.dispute(pending, "no"))
                for _ in range(2):
                    propose(testnet, {ANNA: total})
                    pending = anna.pool().pending
                    assert pending is not None
                    done(owner, owner.dispute(pending, "no"))
                return
            testnet.advance(DELAY_S)
            done(anna, anna.activate())

    def test_the_delay_ends_disputes_and_begins_claims(self, testnet: LocalTestnet) -> None:
        anna, settler = testnet.chain(ANNA), testnet.chain(SETTLERS[2])
        fund(testnet, 1000)
        propose(testnet, {ANNA: 300})
        with pytest.raises(ChainRefused, match="pool: delay is not over"):
            anna.activate()
        testnet.advance(DELAY_S)
        pending = anna.pool().pending
        assert pending is not None
        with pytest.raises(ChainRefused, match="pool: dispute is over"):
            settler.dispute(pending, "too late")
        done(anna, anna.activate())
        assert anna.pool().active == pending
        with pytest.raises(ChainRefused, match="pool: no root is pending"):
            anna.activate()

    def test_a_pause_stops_everything_but_disputes_and_funding(self, testnet: LocalTestnet) -> None:
        anna, owner, settler = testnet.chain(ANNA), testnet.chain(OWNER), testnet.chain(SETTLERS[0])
        fund(testnet, 1000)
        tree = settle(testnet, {ANNA: 300})
        propose(testnet, {ANNA: 301})
        with pytest.raises(ChainRefused, match="ownable: not the owner"):
            anna.pause(True)
        done(owner, owner.pause(True))
        assert owner.pool().paused
        with pytest.raises(ChainRefused, match="ownable: not the owner"):
            anna.pause(False)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 0
        for what in (
            lambda: anna.claim(anna.account, 300, tree.proof(anna.account)),
            lambda: settler.propose(Proposal(epoch=0, root=b"x" * 32, total=0)),
            anna.activate,
        ):
            with pytest.raises(ChainRefused, match="pausable: paused"):
                what()
        fund(testnet, 1)
        pending = anna.pool().pending
        assert pending is not None
        done(settler, settler.dispute(pending, "in a pause too"))
        done(owner, owner.pause(False))
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))

    def test_a_pause_stops_the_clock_of_the_delay(self, testnet: LocalTestnet) -> None:
        anna, owner, settler = testnet.chain(ANNA), testnet.chain(OWNER), testnet.chain(SETTLERS[2])
        fund(testnet, 1000)
        propose(testnet, {ANNA: 300})
        before = anna.pool()
        left_s = before.ready_at_s - anna.head().at_s
        done(owner, owner.pause(True))
        testnet.advance(10 * DELAY_S)
        paused = anna.pool()
        assert paused.ready_at_s >= before.ready_at_s + 10 * DELAY_S
        done(owner, owner.pause(False))
        with pytest.raises(ChainRefused, match="pool: delay is not over"):
            anna.activate()
        assert paused.pending is not None
        again = anna.pool()
        assert DELAY_S / 2 < again.ready_at_s - anna.head().at_s <= left_s
        done(settler, settler.dispute(paused.pending, "a pause is not what disputes are missed in"))

    def test_a_delay_that_was_over_before_a_pause_stays_over(self, testnet: LocalTestnet) -> None:
        anna, owner, settler = testnet.chain(ANNA), testnet.chain(OWNER), testnet.chain(SETTLERS[2])
        fund(testnet, 1000)
        propose(testnet, {ANNA: 300})
        testnet.advance(DELAY_S)
        done(owner, owner.pause(True))
        testnet.advance(DELAY_S)
        pending = anna.pool().pending
        assert pending is not None
        with pytest.raises(ChainRefused, match="pool: dispute is over"):
            settler.dispute(pending, "too late")
        done(owner, owner.pause(False))
        done(anna, anna.activate())
