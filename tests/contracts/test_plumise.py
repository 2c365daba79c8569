"""The profile `plumise`: the client sends the exact bytes, and refuses a chain without agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from contracts.calldata import account_word, inference_calldata
from contracts.chain_client import ChainClient
from contracts.chain_settings import ChainSettings
from contracts.client import connect
from contracts.devnet.genesis import dev_key
from contracts.endpoints import RpcError
from contracts.signers import signer_of
from protocol.chain.errors import ChainRefused, ChainUnreachable, WrongChain
from protocol.chain.port import NO_HASH, InferenceRecord, Proposal
from tests.contracts.testnets import EvmTestnet
from tests.ports.chain_kit import ANNA, BERT, done, fund, settle


class Changed:
    """A transport that changes the node's answers."""

    def __init__(self, testnet: EvmTestnet, change: Callable[[str, Any], Any]) -> None:
        self.url = testnet.transport.url
        self._testnet = testnet
        self._change = change

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        return self._change(method, self._testnet.transport(method, parameters))


def plumise(
    testnet: EvmTestnet, change: Callable[[str, Any], Any] = lambda _, answer: answer
) -> ChainClient:
    settings = ChainSettings(profile="plumise", chain_id=testnet.chain_id, urls=(), confirmations=1)
    return connect(
        settings,
        signer_of(dev_key(ANNA)),
        None,
        now=lambda: 0.0,
        sleep=lambda _: None,
        transports=[Changed(testnet, change)],
    )


def calldata(testnet: EvmTestnet, transaction: str) -> tuple[str, str]:
    found = testnet.transport("eth_getTransactionByHash", (transaction,))
    return found["to"], found["input"]


def test_the_client_sends_exactly_the_precompiles_bytes() -> None:
    testnet = EvmTestnet()
    anna, bert = plumise(testnet), testnet.chain(BERT)
    assert isinstance(bert, ChainClient)
    registered = done(anna, anna.register("node-1", model=b"\x11" * 32))
    words = "0x" + b"node-1".ljust(32, b"\0").hex() + "11" * 32 + "00" * 32
    assert calldata(testnet, registered.hash) == (
        "0x0000000000000000000000000000000000000021",
        words,
    )
    beaten = done(anna, anna.heartbeat(77, b"c" * 32))
    assert calldata(testnet, beaten.hash) == ("0x0000000000000000000000000000000000000022", "0x")
    status = anna.agent(anna.account)
    assert (status.registered, status.active, status.name, status.samples) == (
        True,
        True,
        "node-1",
        0,
    )
    record = InferenceRecord(model=b"m" * 32, inputs=b"i" * 32, outputs=b"o" * 32, tokens=7)
    served = done(anna, anna.record_inference(record))
    assert calldata(testnet, served.hash) == (
        "0x0000000000000000000000000000000000000020",
        "0x" + inference_calldata(record, anna.account).hex(),
    )
    fund(testnet, 1000)
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    done(bert, bert.prove(anna.account, 300, tree.proof(anna.account)))
    claimed = done(anna, anna.claim(anna.account, 0, ()))
    assert calldata(testnet, claimed.hash) == ("0x0000000000000000000000000000000000000023", "0x")
    assert (anna.claimed(anna.account), anna.claimable(anna.account, 0, ())) == (300, 0)
    done(bert, bert.prove(bert.account, 700, tree.proof(bert.account)))
    done(bert, bert.approve_sponsor(anna.account))
    sponsored = done(anna, anna.claim(bert.account, 0, ()))
    assert calldata(testnet, sponsored.hash)[1] == "0x" + account_word(bert.account).hex()


def test_a_chain_without_agents_is_refused_before_anything_is_sent() -> None:
    def plain(method: str, answer: Any) -> Any:
        assert method != "eth_sendRawTransaction"
        if method.startswith("agent_"):
            raise RpcError(-32601, "the method does not exist")
        return answer

    with pytest.raises(WrongChain, match="its addresses 0x20 to 0x23 do nothing"):
        plumise(EvmTestnet(), plain).heartbeat(1, NO_HASH)
    with pytest.raises(WrongChain, match="neither true nor false"):
        plumise(
            EvmTestnet(),
            lambda method, answer: "yes" if method == "agent_isAgentAccount" else answer,
        ).heartbeat(1, NO_HASH)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"registered": False}, "is not registered"),
        ({"lastHeartbeat": 1}, "the last heartbeat is older"),
    ],
)
def test_a_successful_receipt_with_an_unchanged_state_is_a_failure(
    changed: dict[str, Any], why: str
) -> None:
    testnet = EvmTestnet()
    first = plumise(testnet)
    done(first, first.register("anna"))

    def change(method: str, answer: Any) -> Any:
        if method == "eth_getTransactionReceipt" and answer:
            return answer | {"logs": []}
        return answer | changed if method == "agent_getStatus" else answer

    anna = plumise(testnet, change)
    ended = anna.wait(anna.heartbeat(1, NO_HASH), 0)
    assert not ended.done
    assert why in ended.reason


@pytest.mark.parametrize(("gas", "is_done"), [(23_560, False), (73_560, True)])
def test_a_record_of_served_tokens_is_done_where_the_precompile_took_its_gas(
    gas: int, is_done: bool
) -> None:
    testnet = EvmTestnet()
    first = plumise(testnet)
    done(first, first.register("anna"))

    def change(method: str, answer: Any) -> Any:
        if method == "eth_getTransactionReceipt" and answer:
            return answer | {"logs": [], "gasUsed": hex(gas)}
        return answer

    anna = plumise(testnet, change)
    record = InferenceRecord(model=b"m" * 32, inputs=b"i" * 32, outputs=b"o" * 32, tokens=7)
    ended = anna.wait(anna.record_inference(record), 0)
    assert ended.done is is_done
    assert is_done or "23560 gas is too little for 0x20" in ended.reason


def test_functions_that_plumise_lacks_are_reported() -> None:
    anna = plumise(EvmTestnet())
    with pytest.raises(ChainRefused, match="the profile plumise has no proposals"):
        anna.propose(Proposal(epoch=0, root=b"r" * 32, total=1))
    testnet = EvmTestnet()
    first = plumise(testnet)
    done(first, first.register("anna"))
    garbled = plumise(
        testnet,
        lambda method, answer: (
            answer | {"totalRewards": "many"} if method == "agent_getStatus" else answer
        ),
    )
    with pytest.raises(ChainUnreachable, match="for a number"):
        garbled.claimed(anna.account)
