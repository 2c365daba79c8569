"""The contracts at the precompile addresses: calldata that a client never sends."""

from __future__ import annotations

import pytest

from contracts.abi import call_data
from contracts.artifacts import (
    AGENT_REGISTRY,
    CLAIM_PRECOMPILE,
    HEARTBEAT_PRECOMPILE,
    INFERENCE_PRECOMPILE,
    REGISTER_PRECOMPILE,
)
from contracts.calldata import inference_calldata, number_word, register_calldata
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import dev_account
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import Address
from protocol.chain.port import NO_HASH, InferenceRecord
from tests.contracts.testnet_controls import ControlledTestnet, call_raw
from tests.ports.chain_kit import ANNA, BERT, CERTIFICATE, done

WORD = bytes(32)


@pytest.mark.parametrize(
    ("to", "data", "reason"),
    [
        (REGISTER_PRECOMPILE, WORD * 2, "register: too short"),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(1),
            "register: length does not fit the capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(0) + WORD * 2,
            "register: length does not fit the capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(17) + WORD * 17,
            "register: too many capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word((1 << 256) - 1) + WORD,
            "register: too many capabilities",
        ),
        (REGISTER_PRECOMPILE, WORD * 3 + b"\xff" * 32, "register: not an address"),
        (REGISTER_PRECOMPILE, WORD * 3 + WORD, "registry: no agent"),
        (HEARTBEAT_PRECOMPILE, WORD[:31], "heartbeat: 0, 1 or 3 words"),
        (HEARTBEAT_PRECOMPILE, WORD * 2, "heartbeat: 0, 1 or 3 words"),
        (HEARTBEAT_PRECOMPILE, b"\x01" + WORD[1:], "heartbeat: not an address"),
        (HEARTBEAT_PRECOMPILE, b"", "registry: not registered"),
        (INFERENCE_PRECOMPILE, WORD * 4, "inference: 5 words"),
        (INFERENCE_PRECOMPILE, WORD * 6, "inference: 5 words"),
        (INFERENCE_PRECOMPILE, WORD * 3 + b"\x01" + WORD[1:] + WORD, "inference: not an address"),
        (INFERENCE_PRECOMPILE, WORD * 5, "inference: no tokens"),
        (INFERENCE_PRECOMPILE, WORD * 4 + number_word(1 << 53), "inference: too many tokens"),
        (INFERENCE_PRECOMPILE, WORD * 4 + number_word(1), "inference: not registered"),
        (CLAIM_PRECOMPILE, WORD[:31], "claim: not whole words"),
        (CLAIM_PRECOMPILE, WORD * 67, "claim: too long"),
        (CLAIM_PRECOMPILE, b"\x01" + WORD[1:], "claim: not an address"),
        (CLAIM_PRECOMPILE, b"", "pool: nothing was proved"),
        (CLAIM_PRECOMPILE, WORD * 3, "pool: wrong proof"),
    ],
)
def test_malformed_calldata_is_refused(
    testnet: ControlledTestnet, to: Address, data: bytes, reason: str
) -> None:
    with pytest.raises(ChainRefused, match=reason):
        call_raw(testnet, to, data)


@pytest.mark.parametrize("to", [REGISTER_PRECOMPILE, HEARTBEAT_PRECOMPILE, CLAIM_PRECOMPILE])
def test_a_precompile_refuses_money(testnet: ControlledTestnet, to: Address) -> None:
    with pytest.raises(ChainRefused):
        call_raw(
            testnet,
            to,
            b"" if to != REGISTER_PRECOMPILE else register_calldata("", NO_HASH, []),
            value=1,
        )


def test_only_the_precompiles_change_the_registry(testnet: ControlledTestnet) -> None:
    account = dev_account(ANNA)
    beat = call_data(
        "heartbeat(address,address,bool,uint256,bytes32)", account, account, True, 5, NO_HASH
    )
    with pytest.raises(ChainRefused, match="registry: only 0x22 sends heartbeats"):
        call_raw(testnet, AGENT_REGISTRY, beat)
    register = call_data(
        "register(address,address,bytes32,bytes32,bytes32[])",
        account,
        account,
        NO_HASH,
        NO_HASH,
        [],
    )
    with pytest.raises(ChainRefused, match="registry: only 0x21 registers"):
        call_raw(testnet, AGENT_REGISTRY, register)


def test_an_approved_sponsor_acts_for_an_agent_until_revoked(
    testnet: ControlledTestnet,
) -> None:
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(anna, ChainClient)
    done(anna, anna.approve_sponsor(bert.account))
    done(bert, bert.register("anna's machine", capabilities=[b"k" * 32] * 16, agent=anna.account))
    done(bert, bert.heartbeat(9, CERTIFICATE, agent=anna.account))
    found = anna.agent(anna.account)
    assert (found.name, found.samples, found.certificate) == ("anna's machine", 9, CERTIFICATE)
    assert not bert.agent(bert.account).registered
    done(anna, anna.approve_sponsor("0x" + "0" * 40))
    with pytest.raises(ChainRefused, match="registry: not a sponsor"):
        bert.heartbeat(10, CERTIFICATE, agent=anna.account)


def test_only_an_agent_and_its_sponsor_record_what_it_served(testnet: ControlledTestnet) -> None:
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(anna, ChainClient)
    done(anna, anna.register("anna"))
    record = InferenceRecord(model=b"m" * 32, inputs=b"i" * 32, outputs=b"o" * 32, tokens=7)
    data = inference_calldata(record, anna.account)
    with pytest.raises(ChainRefused, match="inference: not a sponsor"):
        call_raw(testnet, INFERENCE_PRECOMPILE, data, sender=BERT)
    done(anna, anna.approve_sponsor(bert.account))
    call_raw(testnet, INFERENCE_PRECOMPILE, data, sender=BERT)


def test_a_plain_heartbeat_keeps_the_last_figures(testnet: ControlledTestnet) -> None:
    anna, plain = testnet.chain(ANNA), testnet.client(ANNA, profile="plumise")
    done(anna, anna.register("anna"))
    done(anna, anna.heartbeat(9, CERTIFICATE))
    testnet.advance(200)
    done(plain, plain.heartbeat(0, NO_HASH))
    found = anna.agent(anna.account)
    assert (found.samples, found.certificate) == (9, CERTIFICATE)
    assert found.last_heartbeat_s >= testnet.chain(ANNA).head().at_s
