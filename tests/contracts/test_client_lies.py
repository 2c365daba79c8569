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
from tests.contracts.ground import EvmGround
from tests.contracts.levers import Changing, blocks, book_of, over

SHARED = EvmGround(auto_mine=False)


@pytest.fixture
def ground() -> EvmGround:
    """Blocks are made when the test says so."""
    return EvmGround(auto_mine=False)


def test_a_chain_without_eip_1559_gets_legacy_transactions(
    ground: EvmGround, tmp_path: Path
) -> None:
    def old(method: str, answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and answer:
            answer.pop("baseFeePerGas")
        return answer

    anna = over(Changing(ground.transport, old), ground, "anna", tmp_path)
    sent = anna.register("anna")
    assert book_of(tmp_path).transactions[0].fees.legacy
    blocks(ground, 1)
    assert anna.wait(sent, 1).done
    assert ground.transport("eth_getTransactionByHash", (sent.hash,))["type"] == "0x0"


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
def test_garbage_is_unreachable_and_nothing_is_sent_on_it(ground: EvmGround, method: str) -> None:
    answer: list[Any] = []
    garbling = Changing(
        ground.transport, lambda asked, true: answer[0] if asked == method else true
    )
    anna = over(garbling, ground, "anna", None)
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
def test_receipts_of_garbage_keep_what_is_in_flight(garbage: Any) -> None:
    ground = SHARED
    ground.devnet.mine()

    class Garbling:
        url = ground.transport.url
        on = False

        def __call__(self, asked: str, parameters: Sequence[Any]) -> Any:
            return (
                garbage
                if self.on and asked == "eth_getTransactionReceipt"
                else ground.transport(asked, parameters)
            )

    transport = Garbling()
    anna = over(transport, ground, "anna", None)
    sent = anna.fund(1)
    transport.on = True
    with suppress_chain_errors():
        anna.reconcile()
    transport.on = False
    assert anna.pending() == (sent,)


class suppress_chain_errors:  # reads as contextlib's own
    """Whatever of the port's errors comes; anything else is a crash."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, (ChainUnreachable, ChainRefused, WrongChain))


def test_a_plain_chain_is_told_from_ours_before_anything_is_sent(ground: EvmGround) -> None:
    """A plain EVM answers calls to empty addresses with status 1."""
    through = ground.transport
    tries: list[tuple[Callable[[str, Any], Any], str]] = [
        (
            lambda method, answer: "0x" if method == "eth_getCode" else answer,
            "no code at 0x0000000000000000000000000000000000000021",
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
            over(Other(), ground, "anna", None).register("anna")


def test_a_good_receipt_without_an_effect_is_not_done(ground: EvmGround, tmp_path: Path) -> None:
    def mute(method: str, answer: Any) -> Any:
        return answer | {"logs": []} if method == "eth_getTransactionReceipt" and answer else answer

    anna = over(Changing(ground.transport, mute), ground, "anna", tmp_path)
    sent = anna.register("anna")
    blocks(ground, 1)
    ended: SettledTransaction = anna.wait(sent, 1)
    assert not ended.done
    assert "nothing happened" in ended.reason


def test_a_receipt_of_something_else_is_no_receipt(ground: EvmGround, tmp_path: Path) -> None:
    """The node shows another transaction's receipt: what is in flight stays so."""
    other = ground.client("bert").fund(1)
    through = ground.transport

    class Mixed:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return through(
                method, (other.hash,) if method == "eth_getTransactionReceipt" else parameters
            )

    anna = over(Mixed(), ground, "anna", tmp_path)
    sent = anna.fund(1)
    blocks(ground, 1)
    with pytest.raises(ChainUnreachable, match="another transaction"):
        anna.reconcile()
    assert anna.pending() == (sent,)


def test_events_of_others_are_nobodys_heartbeat(ground: EvmGround) -> None:
    """A node that looks at neither address nor topic of what it is asked for: what is not the
    registry's heartbeat is none.
    """
    anna, through = ground.client("anna"), ground.transport
    anna.register("anna")
    blocks(ground, 1)
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

    reader = over(Careless(), ground, "bert", None)
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
def test_events_of_garbage_are_unreachable(ground: EvmGround, answer: Any) -> None:
    garbling = Changing(
        ground.transport, lambda method, true: answer if method == "eth_getLogs" else true
    )
    reader = over(garbling, ground, "bert", None)
    with pytest.raises(ChainUnreachable):
        reader.heard([reader.account], 0, ground.devnet.head.timestamp + 1)


def test_a_node_that_finds_it_too_much_is_asked_for_less(ground: EvmGround) -> None:
    """Public endpoints limit blocks and events of one answer, each in its own words."""
    anna, through = ground.client("anna"), ground.transport
    anna.register("anna")
    blocks(ground, 20)
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

    reader = over(Narrow(), ground, "bert", None)
    assert reader.heard([anna.account, reader.account], 0, anna.head().at_s + 1) == {anna.account}
    assert max(asked) > 4 >= min(asked)
