"""What every `Chain` must do, whoever implements it.

The fake and the real client on the real contracts run exactly these tests.

A test module subclasses `ChainSuite` and gives a fixture `ground` with a fresh chain: epochs of
`EPOCH_S`, a dispute delay of `DELAY_S`, two of three settlers needed, an owner, and accounts with
money.
"""

from __future__ import annotations

from typing import Protocol

import pytest
from msgspec.structs import replace

from protocol.chain.errors import ChainPending, ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address, address_of
from protocol.chain.port import NO_HASH, Chain, Proposal, SentTransaction, SettledTransaction
from protocol.settlement.merkle_tree import SettlementTree

EPOCH_S, DELAY_S = 1000, 100
OWNER, SETTLERS, ANNA, BERT = "owner", ("settler 0", "settler 1", "settler 2"), "anna", "bert"
CERTIFICATE, RUN = b"c" * 32, b"r" * 32
COLD = address_of(b"cold wallet, watched")


class Ground(Protocol):
    """A chain and the levers of a test."""

    def chain(self, name: str) -> Chain: ...

    def account(self, name: str) -> Address: ...

    def advance(self, seconds: int) -> None:
        """The chain's clock moves on, and a block is made."""

    def stop(self, stopped: bool) -> None:
        """It answers, and makes no blocks."""

    def cut(self, unreachable: bool) -> None:
        """It does not answer."""


def done(chain: Chain, sent: SentTransaction) -> SettledTransaction:
    ended = chain.wait(sent, 30)
    assert ended.done, ended.reason
    assert ended.sent == sent
    return ended


def fund(ground: Ground, amount: int) -> None:
    owner = ground.chain(OWNER)
    done(owner, owner.fund(amount))


def proposal_of(ground: Ground, totals: dict[str, int]) -> tuple[SettlementTree, Proposal]:
    tree = SettlementTree((ground.account(name), total) for name, total in totals.items())
    epoch = ground.chain(OWNER).pool().epoch - 1
    return tree, Proposal(epoch=epoch, root=tree.root, total=tree.total, data=b"d" * 32)


def propose(ground: Ground, totals: dict[str, int]) -> SettlementTree:
    """In the next epoch, by enough settlers: pending."""
    ground.advance(EPOCH_S)
    tree, proposal = proposal_of(ground, totals)
    for name in SETTLERS[:2]:
        settler = ground.chain(name)
        done(settler, settler.propose(proposal))
    return tree


def settle(ground: Ground, totals: dict[str, int]) -> SettlementTree:
    """And active."""
    tree = propose(ground, totals)
    ground.advance(DELAY_S)
    anna = ground.chain(ANNA)
    done(anna, anna.activate())
    return tree


class ChainSuite:
    # ---------------------------------------------------------------- registry

    def test_registered_once_alive_until_the_timeout(self, ground: Ground) -> None:
        anna = ground.chain(ANNA)
        assert not anna.agent(anna.account).registered
        with pytest.raises(ChainRefused, match="registry: not registered"):
            anna.heartbeat(1, CERTIFICATE)
        done(anna, anna.register("ü" * 40))
        found = anna.agent(anna.account)
        assert (found.registered, found.active, found.name, found.payout) == (
            True,
            True,
            "ü" * 16,
            anna.account,
        )
        with pytest.raises(ChainRefused, match="registry: already registered"):
            anna.register("again")
        ground.advance(301)
        assert not anna.agent(anna.account).active
        done(anna, anna.heartbeat(7, CERTIFICATE))
        found = anna.agent(anna.account)
        assert (found.active, found.samples, found.certificate) == (True, 7, CERTIFICATE)
        assert ground.chain(BERT).agent(anna.account) == found

    def test_counters_that_went_back_are_refused(self, ground: Ground) -> None:
        anna = ground.chain(ANNA)
        done(anna, anna.register(""))
        done(anna, anna.heartbeat(7, CERTIFICATE))
        done(anna, anna.heartbeat(7, NO_HASH))
        with pytest.raises(ChainRefused, match="registry: samples went back"):
            anna.heartbeat(6, CERTIFICATE)
        assert anna.agent(anna.account).samples == 7

    def test_samples_that_nobody_can_have_certified_are_refused(self, ground: Ground) -> None:
        anna = ground.chain(ANNA)
        done(anna, anna.register(""))
        for samples in (1 << 53, (1 << 256) - 1):
            with pytest.raises(ChainRefused, match="registry: too many samples"):
                anna.heartbeat(samples, CERTIFICATE)
        done(anna, anna.heartbeat((1 << 53) - 1, CERTIFICATE))

    def test_everybody_is_told_the_same_of_who_was_heard_and_when(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        both = (anna.account, bert.account)
        began_s = anna.head().at_s
        done(anna, anna.register("anna"))
        ground.advance(200)
        between_s = anna.head().at_s
        ground.advance(200)
        done(bert, bert.register("bert"))
        ground.advance(200)
        later_s = anna.head().at_s
        ground.advance(200)
        done(anna, anna.heartbeat(1, CERTIFICATE))
        ground.advance(10)
        ended_s = anna.head().at_s + 1
        reader = ground.chain(OWNER)
        for since_s, until_s, expected in (
            (began_s, ended_s, set(both)),
            (began_s, between_s, {anna.account}),
            (between_s, later_s, {bert.account}),
            (later_s, ended_s, {anna.account}),
            (ended_s, ended_s + 10**6, set()),
            (0, began_s, set()),
        ):
            assert reader.heard(both, since_s, until_s) == expected
        assert reader.heard((anna.account,), between_s, later_s) == set()
        assert reader.heard((), began_s, ended_s) == set()

    def test_nobody_registers_or_beats_for_another_without_leave(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        with pytest.raises(ChainRefused, match="registry: not a sponsor"):
            bert.register("anna", agent=anna.account)
        done(anna, anna.register("anna"))
        with pytest.raises(ChainRefused, match="registry: not a sponsor"):
            bert.heartbeat(1, CERTIFICATE, agent=anna.account)

    # ---------------------------------------------------------------- pool

    def test_a_settled_epoch_is_paid_once_to_the_payout(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        done(anna, anna.set_payout(COLD))
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300, BERT: 700})
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

    def test_a_stranger_does_not_claim_before_the_payout_is_changed(self, ground: Ground) -> None:
        """A stranger who sees that a payout is about to change could have the old one paid."""
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300, BERT: 700})
        with pytest.raises(ChainRefused, match="not the account or its sponsor"):
            bert.claim(anna.account, 300, tree.proof(anna.account))
        done(anna, anna.set_payout(COLD))
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
        assert anna.balance(COLD) == 300

    def test_the_next_root_pays_the_difference(self, ground: Ground) -> None:
        anna = ground.chain(ANNA)
        done(anna, anna.set_payout(COLD))
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300, BERT: 100})
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
        tree = settle(ground, {ANNA: 450, BERT: 550})
        done(anna, anna.claim(anna.account, 450, tree.proof(anna.account)))
        assert (anna.balance(COLD), anna.claimed(anna.account), anna.pool().balance) == (
            450,
            450,
            550,
        )

    def test_a_wrong_total_account_or_proof_is_refused(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        fund(ground, 1000)
        with pytest.raises(ChainRefused, match="pool: wrong proof"):
            anna.claim(anna.account, 0, ())
        tree = settle(ground, {ANNA: 300, BERT: 700})
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

    def test_a_root_needs_enough_settlers_who_say_the_same(self, ground: Ground) -> None:
        first, second, anna = (
            ground.chain(SETTLERS[0]),
            ground.chain(SETTLERS[1]),
            ground.chain(ANNA),
        )
        fund(ground, 1000)
        ground.advance(EPOCH_S)
        _, proposal = proposal_of(ground, {ANNA: 300})
        _, other = proposal_of(ground, {ANNA: 301})
        with pytest.raises(ChainRefused, match="pool: not a settler"):
            anna.propose(proposal)
        done(first, first.propose(proposal))
        done(second, second.propose(other))
        assert first.pool().pending is None
        done(second, second.propose(proposal))  # a settler may think again
        pool = first.pool()
        assert pool.pending == proposal
        assert first.head().at_s < pool.ready_at_s <= first.head().at_s + DELAY_S
        with pytest.raises(ChainRefused, match="pool: another root is pending"):
            first.propose(other)

    def test_one_settler_twice_is_one(self, ground: Ground) -> None:
        first = ground.chain(SETTLERS[0])
        fund(ground, 1000)
        ground.advance(EPOCH_S)
        _, proposal = proposal_of(ground, {ANNA: 300})
        done(first, first.propose(proposal))
        done(first, first.propose(proposal))
        assert first.pool().pending is None

    def test_what_the_pool_cannot_cover_is_not_proposed(self, ground: Ground) -> None:
        settler = ground.chain(SETTLERS[0])
        fund(ground, 1000)
        ground.advance(EPOCH_S)
        _, proposal = proposal_of(ground, {ANNA: 1001})
        with pytest.raises(ChainRefused, match="pool: not covered"):
            settler.propose(proposal)

    def test_epochs_are_settled_once_when_they_are_over(self, ground: Ground) -> None:
        settler = ground.chain(SETTLERS[0])
        fund(ground, 1000)
        settle(ground, {ANNA: 300})
        tree, again = proposal_of(ground, {ANNA: 400})
        with pytest.raises(ChainRefused, match="pool: epoch already settled"):
            settler.propose(again)
        with pytest.raises(ChainRefused, match="pool: epoch is not over"):
            settler.propose(Proposal(epoch=settler.pool().epoch, root=tree.root, total=tree.total))
        ground.advance(EPOCH_S)
        _, less = proposal_of(ground, {ANNA: 299})
        with pytest.raises(ChainRefused, match="pool: total went back"):
            settler.propose(less)

    def test_a_disputed_root_falls_back_to_the_last_one(self, ground: Ground) -> None:
        anna, owner, settler = ground.chain(ANNA), ground.chain(OWNER), ground.chain(SETTLERS[2])
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300})
        good = anna.pool().active
        assert good is not None
        propose(ground, {ANNA: 900})
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
        propose(ground, {ANNA: 400})
        assert anna.pool().pending is not None

    def test_a_late_dispute_does_not_hit_the_corrected_root_of_the_same_epoch(
        self, ground: Ground
    ) -> None:
        owner, late = ground.chain(OWNER), ground.chain(SETTLERS[2])
        fund(ground, 1000)
        propose(ground, {ANNA: 900})
        wrong = owner.pool().pending
        assert wrong is not None
        done(owner, owner.dispute(wrong, "900 is not what the certificates say"))
        tree, _ = proposal_of(ground, {ANNA: 400})
        right = replace(wrong, root=tree.root, total=tree.total)
        for name in SETTLERS[:2]:
            settler = ground.chain(name)
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
        done(late, late.dispute(right, "it is this one that I mean"))

    def test_a_settler_that_disputes_everything_holds_payment_up_by_one_delay(
        self, ground: Ground
    ) -> None:
        anna, owner = ground.chain(ANNA), ground.chain(OWNER)
        bad, other = ground.chain(SETTLERS[2]), ground.chain(SETTLERS[0])
        fund(ground, 1000)
        for total in (300, 400):  # once for each root, not once for ever
            propose(ground, {ANNA: total})
            pending = anna.pool().pending
            assert pending is not None
            done(bad, bad.dispute(pending, "no"))
            # An epoch later: that is no new dispute either.
            propose(ground, {ANNA: total})
            pending = anna.pool().pending
            assert pending is not None
            with pytest.raises(ChainRefused, match="pool: dispute is used up"):
                bad.dispute(pending, "no")
            # Somebody else has one, and the owner has more than one.
            if total == 400:
                done(other, other.dispute(pending, "no"))
                for _ in range(2):
                    propose(ground, {ANNA: total})
                    pending = anna.pool().pending
                    assert pending is not None
                    done(owner, owner.dispute(pending, "no"))
                return
            ground.advance(DELAY_S)
            done(anna, anna.activate())

    def test_the_delay_ends_disputes_and_begins_claims(self, ground: Ground) -> None:
        anna, settler = ground.chain(ANNA), ground.chain(SETTLERS[2])
        fund(ground, 1000)
        propose(ground, {ANNA: 300})
        with pytest.raises(ChainRefused, match="pool: delay is not over"):
            anna.activate()
        ground.advance(DELAY_S)
        pending = anna.pool().pending
        assert pending is not None
        with pytest.raises(ChainRefused, match="pool: dispute is over"):
            settler.dispute(pending, "too late")
        done(anna, anna.activate())
        assert anna.pool().active == pending
        with pytest.raises(ChainRefused, match="pool: no root is pending"):
            anna.activate()

    def test_a_pause_stops_everything_but_disputes_and_funding(self, ground: Ground) -> None:
        anna, owner, settler = ground.chain(ANNA), ground.chain(OWNER), ground.chain(SETTLERS[0])
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300})
        propose(ground, {ANNA: 301})
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
        fund(ground, 1)
        pending = anna.pool().pending
        assert pending is not None
        done(settler, settler.dispute(pending, "in a pause too"))
        done(owner, owner.pause(False))
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))

    def test_the_delay_stands_still_in_a_pause(self, ground: Ground) -> None:
        anna, owner, settler = ground.chain(ANNA), ground.chain(OWNER), ground.chain(SETTLERS[2])
        fund(ground, 1000)
        propose(ground, {ANNA: 300})
        before = anna.pool()
        left_s = before.ready_at_s - anna.head().at_s
        done(owner, owner.pause(True))
        ground.advance(10 * DELAY_S)
        paused = anna.pool()
        assert paused.ready_at_s >= before.ready_at_s + 10 * DELAY_S
        done(owner, owner.pause(False))
        with pytest.raises(ChainRefused, match="pool: delay is not over"):
            anna.activate()
        assert paused.pending is not None
        again = anna.pool()
        assert DELAY_S / 2 < again.ready_at_s - anna.head().at_s <= left_s
        done(settler, settler.dispute(paused.pending, "a pause is not what disputes are missed in"))

    def test_a_delay_that_was_over_before_a_pause_stays_over(self, ground: Ground) -> None:
        anna, owner, settler = ground.chain(ANNA), ground.chain(OWNER), ground.chain(SETTLERS[2])
        fund(ground, 1000)
        propose(ground, {ANNA: 300})
        ground.advance(DELAY_S)
        done(owner, owner.pause(True))
        ground.advance(DELAY_S)
        pending = anna.pool().pending
        assert pending is not None
        with pytest.raises(ChainRefused, match="pool: dispute is over"):
            settler.dispute(pending, "too late")
        done(owner, owner.pause(False))
        done(anna, anna.activate())

    # ---------------------------------------------------------------- runs

    def test_a_run_is_moved_by_its_owner_alone_and_in_order(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        assert anna.run(RUN, anna.account).state == "none"
        with pytest.raises(ChainRefused, match="sessions: no such run"):
            anna.activate_run(RUN)
        done(anna, anna.create_run(RUN, b"m" * 32))
        found = bert.run(RUN, anna.account)
        assert (found.state, found.owner, found.manifest) == ("created", anna.account, b"m" * 32)
        with pytest.raises(ChainRefused, match="sessions: already created"):
            anna.create_run(RUN, b"m" * 32)
        with pytest.raises(ChainRefused, match="sessions: no such run"):
            bert.activate_run(RUN)
        with pytest.raises(ChainRefused, match="sessions: not active"):
            anna.complete_run(RUN, CERTIFICATE)
        done(anna, anna.activate_run(RUN))
        with pytest.raises(ChainRefused, match="sessions: not created"):
            anna.activate_run(RUN)
        with pytest.raises(ChainRefused, match="sessions: no such run"):
            bert.complete_run(RUN, CERTIFICATE)
        with pytest.raises(ChainRefused, match="sessions: no such run"):
            bert.cancel_run(RUN, "I do not like it")
        with pytest.raises(ChainRefused, match="sessions: no certificate"):
            anna.complete_run(RUN, NO_HASH)
        done(anna, anna.complete_run(RUN, CERTIFICATE))
        ended = anna.run(RUN, anna.account)
        assert (ended.state, ended.certificate) == ("completed", CERTIFICATE)
        with pytest.raises(ChainRefused, match="sessions: already ended"):
            anna.cancel_run(RUN, "too late")
        other = b"o" * 32
        done(anna, anna.create_run(other, b"m" * 32))
        done(anna, anna.cancel_run(other, "nobody came"))
        assert anna.run(other, anna.account).state == "cancelled"

    def test_a_stranger_who_creates_a_session_first_blocks_nobody(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        done(bert, bert.create_run(RUN, b"x" * 32))
        done(bert, bert.cancel_run(RUN, "it is mine"))
        assert anna.run(RUN, anna.account).state == "none"
        done(anna, anna.create_run(RUN, b"m" * 32))
        done(anna, anna.activate_run(RUN))
        found = anna.run(RUN, anna.account)
        assert (found.state, found.owner, found.manifest) == ("active", anna.account, b"m" * 32)
        assert bert.run(RUN, bert.account).state == "cancelled"

    # ---------------------------------------------------------------- what is in flight

    def test_what_is_in_flight_is_not_sent_again_and_told_once_when_it_ends(
        self, ground: Ground
    ) -> None:
        anna = ground.chain(ANNA)
        ground.stop(True)
        sent = anna.register("anna")
        assert anna.register("anna") == sent
        other = anna.create_run(RUN, b"m" * 32)
        assert anna.pending() == (sent, other)
        assert anna.reconcile() == ()
        with pytest.raises(ChainPending):
            anna.wait(sent, 2)
        ground.stop(False)
        done(anna, other)
        done(anna, sent)
        assert anna.pending() == ()
        assert {ended.sent for ended in anna.reconcile()} == {sent, other}
        assert anna.reconcile() == ()
        assert anna.agent(anna.account).registered

    def test_a_chain_that_does_not_answer_is_unreachable_and_nothing_is_lost(
        self, ground: Ground
    ) -> None:
        anna = ground.chain(ANNA)
        ground.stop(True)
        sent = anna.register("anna")
        ground.cut(True)
        for ask in (
            anna.head,
            anna.pool,
            anna.reconcile,
            lambda: anna.heartbeat(1, CERTIFICATE),
            lambda: anna.agent(anna.account),
        ):
            with pytest.raises(ChainUnreachable):
                ask()
        assert anna.pending() == (sent,)
        ground.cut(False)
        ground.stop(False)
        done(anna, sent)
