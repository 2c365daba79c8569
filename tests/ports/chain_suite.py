"""What every `Chain` must do, whoever implements it. The fake and the real client on the real contracts run exactly these tests.

A test module subclasses `ChainSuite` and gives a fixture `ground` with a fresh chain: epochs of `EPOCH_S`, a dispute delay of `DELAY_S`, two of three
settlers needed, an owner, and accounts with money.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from protocol.chain import NO_HASH, Chain, ChainPending, ChainRefused, ChainUnreachable, Proposal, Sent, Settled
from protocol.keccak import Address, address_of
from protocol.merkle_tree import SettlementTree

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


def done(chain: Chain, sent: Sent) -> Settled:
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
        assert (found.registered, found.active, found.name, found.payout) == (True, True, "ü" * 16, anna.account)
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

    def test_a_settled_epoch_is_paid_once_to_the_payout_by_whoever_sends_the_claim(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        done(anna, anna.set_payout(COLD))
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300, BERT: 700})
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 300
        done(bert, bert.claim(anna.account, 300, tree.proof(anna.account)))
        assert (bert.balance(COLD), bert.claimed(anna.account), bert.pool().balance, bert.pool().claimed) == (300, 300, 700, 300)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 0
        with pytest.raises(ChainRefused, match="pool: nothing to claim"):
            bert.claim(anna.account, 300, tree.proof(anna.account))

    def test_the_next_root_pays_the_difference(self, ground: Ground) -> None:
        bert = ground.chain(BERT)
        anna, cold = ground.account(ANNA), ground.chain(ANNA)
        done(cold, cold.set_payout(COLD))
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300, BERT: 100})
        done(bert, bert.claim(anna, 300, tree.proof(anna)))
        tree = settle(ground, {ANNA: 450, BERT: 550})
        done(bert, bert.claim(anna, 450, tree.proof(anna)))
        assert (bert.balance(COLD), bert.claimed(anna), bert.pool().balance) == (450, 450, 550)

    def test_a_wrong_total_account_or_proof_is_refused(self, ground: Ground) -> None:
        anna, bert = ground.account(ANNA), ground.account(BERT)
        chain = ground.chain(BERT)
        fund(ground, 1000)
        with pytest.raises(ChainRefused, match="pool: wrong proof"):
            chain.claim(anna, 0, ())
        tree = settle(ground, {ANNA: 300, BERT: 700})
        for account, total, proof in (
            (anna, 301, tree.proof(anna)),
            (bert, 300, tree.proof(anna)),
            (anna, 300, ()),
            (anna, 300, (NO_HASH,)),
        ):
            assert chain.claimable(account, total, proof) == 0
            with pytest.raises(ChainRefused, match="pool: wrong proof"):
                chain.claim(account, total, proof)

    def test_a_root_needs_enough_settlers_who_say_the_same(self, ground: Ground) -> None:
        first, second, anna = ground.chain(SETTLERS[0]), ground.chain(SETTLERS[1]), ground.chain(ANNA)
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
        epoch = good.epoch + 1
        with pytest.raises(ChainRefused, match="pool: may not dispute"):
            anna.dispute(epoch, "I do not like it")
        with pytest.raises(ChainRefused, match="pool: another epoch is pending"):
            settler.dispute(epoch + 1, "late")
        done(settler, settler.dispute(epoch, "900 is not what the certificates say", b"e" * 32))
        assert (anna.pool().active, anna.pool().pending) == (good, None)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 300
        with pytest.raises(ChainRefused, match="pool: no root is pending"):
            owner.dispute(epoch, "again")
        propose(ground, {ANNA: 400})  # votes before the dispute count no more, the same epoch can be settled again
        assert anna.pool().pending is not None

    def test_a_settler_that_disputes_everything_holds_payment_up_by_one_delay(self, ground: Ground) -> None:
        anna, owner = ground.chain(ANNA), ground.chain(OWNER)
        bad, other = ground.chain(SETTLERS[2]), ground.chain(SETTLERS[0])
        fund(ground, 1000)
        for total in (300, 400):  # once for each root, not once for ever
            propose(ground, {ANNA: total})
            pending = anna.pool().pending
            assert pending is not None
            done(bad, bad.dispute(pending.epoch, "no"))
            propose(ground, {ANNA: total})  # an epoch later: that is no new dispute either
            pending = anna.pool().pending
            assert pending is not None
            with pytest.raises(ChainRefused, match="pool: dispute is used up"):
                bad.dispute(pending.epoch, "no")
            if total == 400:  # somebody else has one, and the owner has more than one
                done(other, other.dispute(pending.epoch, "no"))
                for _ in range(2):
                    propose(ground, {ANNA: total})
                    pending = anna.pool().pending
                    assert pending is not None
                    done(owner, owner.dispute(pending.epoch, "no"))
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
            settler.dispute(pending.epoch, "too late")
        done(anna, anna.activate())
        assert anna.pool().active == pending
        with pytest.raises(ChainRefused, match="pool: no root is pending"):
            anna.activate()

    def test_a_pause_stops_everything_but_disputes_and_funding(self, ground: Ground) -> None:
        anna, owner, settler = ground.chain(ANNA), ground.chain(OWNER), ground.chain(SETTLERS[0])
        fund(ground, 1000)
        tree = settle(ground, {ANNA: 300})
        propose(ground, {ANNA: 301})
        with pytest.raises(ChainRefused, match="ownable: caller is not the owner"):
            anna.pause(True)
        done(owner, owner.pause(True))
        assert owner.pool().paused
        with pytest.raises(ChainRefused, match="ownable: caller is not the owner"):
            anna.pause(False)
        assert anna.claimable(anna.account, 300, tree.proof(anna.account)) == 0
        for what in (
            lambda: anna.claim(anna.account, 300, tree.proof(anna.account)),
            lambda: settler.propose(Proposal(epoch=0, root=b"x" * 32, total=0)),
            anna.activate,
        ):
            with pytest.raises(ChainRefused, match="pausable: contract is paused"):
                what()
        fund(ground, 1)
        pending = anna.pool().pending
        assert pending is not None
        done(settler, settler.dispute(pending.epoch, "in a pause too"))
        done(owner, owner.pause(False))
        done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))

    # ---------------------------------------------------------------- runs

    def test_a_run_is_moved_by_its_owner_alone_and_in_order(self, ground: Ground) -> None:
        anna, bert = ground.chain(ANNA), ground.chain(BERT)
        assert anna.run(RUN).state == "none"
        with pytest.raises(ChainRefused, match="sessions: no such run"):
            anna.activate_run(RUN)
        done(anna, anna.create_run(RUN, b"m" * 32))
        found = bert.run(RUN)
        assert (found.state, found.owner, found.manifest) == ("created", anna.account, b"m" * 32)
        with pytest.raises(ChainRefused, match="sessions: already created"):
            bert.create_run(RUN, b"m" * 32)
        with pytest.raises(ChainRefused, match="sessions: not the owner"):
            bert.activate_run(RUN)
        with pytest.raises(ChainRefused, match="sessions: not active"):
            anna.complete_run(RUN, CERTIFICATE)
        done(anna, anna.activate_run(RUN))
        with pytest.raises(ChainRefused, match="sessions: not created"):
            anna.activate_run(RUN)
        with pytest.raises(ChainRefused, match="sessions: not the owner"):
            bert.complete_run(RUN, CERTIFICATE)
        with pytest.raises(ChainRefused, match="sessions: not the owner"):
            bert.cancel_run(RUN, "I do not like it")
        with pytest.raises(ChainRefused, match="sessions: no certificate"):
            anna.complete_run(RUN, NO_HASH)
        done(anna, anna.complete_run(RUN, CERTIFICATE))
        assert (anna.run(RUN).state, anna.run(RUN).certificate) == ("completed", CERTIFICATE)
        with pytest.raises(ChainRefused, match="sessions: already ended"):
            anna.cancel_run(RUN, "too late")
        other = b"o" * 32
        done(anna, anna.create_run(other, b"m" * 32))
        done(anna, anna.cancel_run(other, "nobody came"))
        assert anna.run(other).state == "cancelled"

    # ---------------------------------------------------------------- what is in flight

    def test_what_is_in_flight_is_not_sent_again_and_told_once_when_it_ends(self, ground: Ground) -> None:
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

    def test_a_chain_that_does_not_answer_is_unreachable_and_nothing_is_lost(self, ground: Ground) -> None:
        anna = ground.chain(ANNA)
        ground.stop(True)
        sent = anna.register("anna")
        ground.cut(True)
        for ask in (anna.head, anna.pool, anna.reconcile, lambda: anna.heartbeat(1, CERTIFICATE), lambda: anna.agent(anna.account)):
            with pytest.raises(ChainUnreachable):
                ask()
        assert anna.pending() == (sent,)
        ground.cut(False)
        ground.stop(False)
        done(anna, sent)
