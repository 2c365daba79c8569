"""Runs on the chain, and transactions in flight."""

from __future__ import annotations

import pytest

from protocol.chain.errors import ChainPending, ChainRefused, ChainUnreachable
from protocol.chain.port import NO_HASH
from tests.ports.chain_kit import (
    ANNA,
    BERT,
    CERTIFICATE,
    RUN,
    LocalTestnet,
    done,
)


class ChainSessionSuite:
    """Part of `ChainSuite`."""

    def test_only_the_owner_advances_a_run_and_in_order(self, testnet: LocalTestnet) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
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

    def test_a_session_that_a_stranger_created_first_blocks_no_other(
        self, testnet: LocalTestnet
    ) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        done(bert, bert.create_run(RUN, b"x" * 32))
        done(bert, bert.cancel_run(RUN, "it is mine"))
        assert anna.run(RUN, anna.account).state == "none"
        done(anna, anna.create_run(RUN, b"m" * 32))
        done(anna, anna.activate_run(RUN))
        found = anna.run(RUN, anna.account)
        assert (found.state, found.owner, found.manifest) == ("active", anna.account, b"m" * 32)
        assert bert.run(RUN, bert.account).state == "cancelled"

    def test_a_pending_transaction_is_sent_once_and_its_end_is_reported_once(
        self, testnet: LocalTestnet
    ) -> None:
        anna = testnet.chain(ANNA)
        testnet.pause_mining(True)
        sent = anna.register("anna")
        assert anna.register("anna") == sent
        other = anna.create_run(RUN, b"m" * 32)
        assert anna.pending() == (sent, other)
        assert anna.reconcile() == ()
        with pytest.raises(ChainPending):
            anna.wait(sent, 2)
        testnet.pause_mining(False)
        done(anna, other)
        done(anna, sent)
        assert anna.pending() == ()
        assert {ended.sent for ended in anna.reconcile()} == {sent, other}
        assert anna.reconcile() == ()
        assert anna.agent(anna.account).registered

    def test_a_chain_that_does_not_answer_is_unreachable_and_nothing_is_lost(
        self, testnet: LocalTestnet
    ) -> None:
        anna = testnet.chain(ANNA)
        testnet.pause_mining(True)
        sent = anna.register("anna")
        testnet.set_unreachable(True)
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
        testnet.set_unreachable(False)
        testnet.pause_mining(False)
        done(anna, sent)
