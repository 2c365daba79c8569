"""Registration and heartbeats."""

from __future__ import annotations

import msgspec
import pytest

from protocol.chain.errors import ChainRefused
from protocol.chain.port import NO_HASH, InferenceRecord
from tests.ports.chain_kit import (
    ANNA,
    BERT,
    CERTIFICATE,
    OWNER,
    LocalTestnet,
    done,
)


class ChainRegistrySuite:
    """Part of `ChainSuite`."""

    def test_an_account_registers_once_and_is_alive_until_the_timeout(
        self, testnet: LocalTestnet
    ) -> None:
        anna = testnet.chain(ANNA)
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
        testnet.advance(301)
        assert not anna.agent(anna.account).active
        done(anna, anna.heartbeat(7, CERTIFICATE))
        found = anna.agent(anna.account)
        assert (found.active, found.samples, found.certificate) == (True, 7, CERTIFICATE)
        assert testnet.chain(BERT).agent(anna.account) == found

    def test_counters_that_decrease_are_refused(self, testnet: LocalTestnet) -> None:
        anna = testnet.chain(ANNA)
        done(anna, anna.register(""))
        done(anna, anna.heartbeat(7, CERTIFICATE))
        done(anna, anna.heartbeat(7, NO_HASH))
        with pytest.raises(ChainRefused, match="registry: samples went back"):
            anna.heartbeat(6, CERTIFICATE)
        assert anna.agent(anna.account).samples == 7

    def test_impossible_sample_counts_are_refused(self, testnet: LocalTestnet) -> None:
        anna = testnet.chain(ANNA)
        done(anna, anna.register(""))
        for samples in (1 << 53, (1 << 256) - 1):
            with pytest.raises(ChainRefused, match="registry: too many samples"):
                anna.heartbeat(samples, CERTIFICATE)
        done(anna, anna.heartbeat((1 << 53) - 1, CERTIFICATE))

    def test_all_clients_read_the_same_heartbeats(self, testnet: LocalTestnet) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        both = (anna.account, bert.account)
        began_s = anna.head().at_s
        done(anna, anna.register("anna"))
        testnet.advance(200)
        between_s = anna.head().at_s
        testnet.advance(200)
        done(bert, bert.register("bert"))
        testnet.advance(200)
        later_s = anna.head().at_s
        testnet.advance(200)
        done(anna, anna.heartbeat(1, CERTIFICATE))
        testnet.advance(10)
        ended_s = anna.head().at_s + 1
        reader = testnet.chain(OWNER)
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

    def test_registration_for_another_account_needs_its_consent(
        self, testnet: LocalTestnet
    ) -> None:
        anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
        with pytest.raises(ChainRefused, match="registry: not a sponsor"):
            bert.register("anna", agent=anna.account)
        done(anna, anna.register("anna"))
        with pytest.raises(ChainRefused, match="registry: not a sponsor"):
            bert.heartbeat(1, CERTIFICATE, agent=anna.account)

    def test_an_agent_records_what_it_served_once(self, testnet: LocalTestnet) -> None:
        anna = testnet.chain(ANNA)
        record = InferenceRecord(model=b"m" * 32, inputs=b"i" * 32, outputs=b"o" * 32, tokens=40)
        with pytest.raises(ChainRefused, match="inference: not registered"):
            anna.record_inference(record)
        done(anna, anna.register("anna"))
        done(anna, anna.record_inference(record))
        with pytest.raises(ChainRefused, match="inference: recorded already"):
            anna.record_inference(record)
        for tokens, reason in ((0, "no tokens"), (1 << 53, "too many tokens")):
            with pytest.raises(ChainRefused, match=f"inference: {reason}"):
                anna.record_inference(msgspec.structs.replace(record, tokens=tokens))
        done(anna, anna.record_inference(msgspec.structs.replace(record, tokens=41)))
