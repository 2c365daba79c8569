"""Nodes that answer garbage, belong to another chain, show false receipts, or lack EIP-1559.

The faults are between the client and the chain, so the embedded EVM is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.artifacts import AGENT_REGISTRY, REWARD_POOL
from contracts.endpoints import RpcError
from contracts.liveness import HEARTBEAT
from protocol.chain.errors import ChainRefused, ChainUnreachable, WrongChain
from protocol.chain.port import SettledTransaction
from tests.contracts.testnet_controls import AlteringTransport, client_over, make_blocks, pending_of
from tests.contracts.testnets import EvmTestnet

SHARED = EvmTestnet(auto_mine=False)


@pytest.fixture
def testnet() -> EvmTestnet:
    """Return a chain that makes blocks only on `advance`."""
    return EvmTestnet(auto_mine=False)


def test_a_chain_without_eip_1559_gets_legacy_transactions(
    testnet: EvmTestnet, tmp_path: Path
) -> None:
    def old(method: str, answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and answer:
            answer.pop("baseFeePerGas")
        return answer

    anna = client_over(AlteringTransport(testnet.transport, old), testnet, "anna", tmp_path)
    sent = anna.register("anna")
    assert pending_of(tmp_path).transactions[0].fees.legacy
    make_blocks(testnet, 1)
    assert anna.wait(sent, 1).done
    assert testnet.transport("eth_getTransactionByHash", (sent.hash,))["type"] == "0x0"


GARBAGE = (None, "", "0x", "zz", -1, [], {}, {"number": 5}, "0x" + "f" * 5000)


@pytest.mark.parametrize(
    "method",
    [
        "eth_call",
        "eth_estimateGas",
        "eth_getTransactionCount",
        "eth_blockNumber",
        "eth_getBlockByNumber",
    ],
)
def test_garbage_counts_as_unreachable_and_nothing_is_sent(
    testnet: EvmTestnet, method: str
) -> None:
    answer: list[Any] = []
    garbling = AlteringTransport(
        testnet.transport, lambda asked, true: answer[0] if asked == method else true
    )
    anna = client_over(garbling, testnet, "anna", None)
    for garbage in GARBAGE:
        answer[:] = [garbage]
        ask = (
            (lambda: anna.agent(anna.account))
            if method == "eth_call"
            else (lambda: anna.register("anna"))
        )
        with pytest.raises(ChainUnreachable):
            ask()
    assert anna.pending() == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
@settings(max_examples=15, deadline=None)
def test_garbage_receipts_keep_transactions_in_flight(garbage: Any) -> None:
    testnet = SHARED
    testnet.devnet.mine()

    class Garbling:
        url = testnet.transport.url
        on = False

        def __call__(self, asked: str, parameters: Sequence[Any]) -> Any:
            return (
                garbage
                if self.on and asked == "eth_getTransactionReceipt"
                else testnet.transport(asked, parameters)
            )

    transport = Garbling()
    anna = client_over(transport, testnet, "anna", None)
    sent = anna.fund(1)
    transport.on = True
    with suppress_chain_errors():
        anna.reconcile()
    transport.on = False
    assert anna.pending() == (sent,)


class suppress_chain_errors:
    """Suppresses the errors of the chain's port; any other error fails the test."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, (ChainUnreachable, ChainRefused, WrongChain))


def test_a_plain_chain_is_refused_before_anything_is_sent(testnet: EvmTestnet) -> None:
    """A plain EVM answers calls to empty addresses with status 1."""
    through = testnet.transport
    tries: list[tuple[Callable[[str, Any], Any], str]] = [
        (
            lambda method, answer: "0x" if method == "eth_getCode" else answer,
            "no code at 0x0000000000000000000000000000000000000020",
        ),
        (
            lambda method, answer: "0x1" if method == "eth_chainId" else answer,
            "expected chain 4195600, found chain 1",
        ),
    ]
    for change, why in tries:

        class Other:
            url = through.url

            def __call__(
                self,
                method: str,
                parameters: Sequence[Any],
                change: Callable[[str, Any], Any] = change,
            ) -> Any:
                assert method != "eth_sendRawTransaction"
                return change(method, through(method, parameters))

        with pytest.raises(WrongChain, match=why):
            client_over(Other(), testnet, "anna", None).register("anna")


def test_a_successful_receipt_without_an_effect_is_a_failure(
    testnet: EvmTestnet, tmp_path: Path
) -> None:
    def mute(method: str, answer: Any) -> Any:
        return answer | {"logs": []} if method == "eth_getTransactionReceipt" and answer else answer

    anna = client_over(AlteringTransport(testnet.transport, mute), testnet, "anna", tmp_path)
    sent = anna.register("anna")
    make_blocks(testnet, 1)
    ended: SettledTransaction = anna.wait(sent, 1)
    assert not ended.done
    assert "nothing happened" in ended.reason


def test_a_receipt_of_another_transaction_is_ignored(testnet: EvmTestnet, tmp_path: Path) -> None:
    """If a node shows another transaction's receipt, the transaction stays pending."""
    other = testnet.client("bert").fund(1)
    through = testnet.transport

    class Mixed:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return through(
                method, (other.hash,) if method == "eth_getTransactionReceipt" else parameters
            )

    anna = client_over(Mixed(), testnet, "anna", tmp_path)
    sent = anna.fund(1)
    make_blocks(testnet, 1)
    with pytest.raises(ChainUnreachable, match="another transaction"):
        anna.reconcile()
    assert anna.pending() == (sent,)


def test_events_that_are_no_heartbeat_are_ignored(testnet: EvmTestnet) -> None:
    """The client filters events itself, since a node may ignore the address and the topics."""
    anna, through = testnet.client("anna"), testnet.transport
    anna.register("anna")
    make_blocks(testnet, 1)
    event = {
        "address": AGENT_REGISTRY,
        "topics": [HEARTBEAT, "0x" + anna.account[2:].lower().rjust(64, "0")],
        "data": "0x",
    }
    shown: list[dict[str, object]] = []

    class Careless:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return list(shown) if method == "eth_getLogs" else through(method, parameters)

    reader = client_over(Careless(), testnet, "bert", None)
    since_s, until_s = 0, anna.head().at_s + 1
    for change in (
        {"address": REWARD_POOL},
        {"topics": ["0x" + "12" * 32, event["topics"][1]]},
        {"topics": [HEARTBEAT]},
    ):
        shown[:] = [event | change]
        assert reader.heard([anna.account], since_s, until_s) == frozenset()
    shown[:] = [event]
    assert reader.heard([anna.account], since_s, until_s) == {anna.account}


@pytest.mark.parametrize(
    "answer", [None, {}, [{"address": "0x12", "topics": "x", "data": 5}], [7], "0x"]
)
def test_garbage_events_count_as_unreachable(testnet: EvmTestnet, answer: Any) -> None:
    garbling = AlteringTransport(
        testnet.transport, lambda method, true: answer if method == "eth_getLogs" else true
    )
    reader = client_over(garbling, testnet, "bert", None)
    with pytest.raises(ChainUnreachable):
        reader.heard([reader.account], 0, testnet.devnet.head.timestamp + 1)


def test_a_node_that_limits_event_queries_is_asked_for_fewer_blocks(testnet: EvmTestnet) -> None:
    """Public endpoints limit the blocks and events of one answer, with different messages."""
    anna, through = testnet.client("anna"), testnet.transport
    anna.register("anna")
    make_blocks(testnet, 20)
    asked: list[int] = []

    class Narrow:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_getLogs":
                size = int(parameters[0]["toBlock"], 16) - int(parameters[0]["fromBlock"], 16) + 1
                asked.append(size)
                if size > 4:
                    raise RpcError(-32000, "query returned more than 4 results")
            return through(method, parameters)

    reader = client_over(Narrow(), testnet, "bert", None)
    assert reader.heard([anna.account, reader.account], 0, anna.head().at_s + 1) == {anna.account}
    assert max(asked) > 4 >= min(asked)
