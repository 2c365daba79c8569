"""The profile `plumise`: the client sends the exact bytes, and refuses a chain without agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from contracts.calldata import account_word
from contracts.chain_client import ChainClient
from contracts.chain_settings import ChainSettings
from contracts.client import connect
from contracts.devnet.genesis import dev_key
from contracts.endpoints import RpcError
from contracts.signers import signer_of
from protocol.chain.errors import ChainRefused, ChainUnreachable, WrongChain
from protocol.chain.port import NO_HASH, Proposal
from tests.contracts.ground import EvmGround
from tests.ports.chain_kit import ANNA, BERT, done, fund, settle


class Changed:
    """A node whose answers are changed on the way."""

    def __init__(self, ground: EvmGround, change: Callable[[str, Any], Any]) -> None:
        self.url = ground.transport.url
        self._ground = ground
        self._change = change

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        return self._change(method, self._ground.transport(method, parameters))


def plumise(
    ground: EvmGround, change: Callable[[str, Any], Any] = lambda _, answer: answer
) -> ChainClient:
    settings = ChainSettings(profile="plumise", chain_id=ground.chain_id, urls=(), confirmations=1)
    return connect(
        settings,
        signer_of(dev_key(ANNA)),
        None,
        now=lambda: 0.0,
        sleep=lambda _: None,
        transports=[Changed(ground, change)],
    )


def calldata(ground: EvmGround, transaction: str) -> tuple[str, str]:
    found = ground.transport("eth_getTransactionByHash", (transaction,))
    return found["to"], found["input"]


def test_its_words_and_nothing_else_are_sent() -> None:
    ground = EvmGround()
    anna, bert = plumise(ground), ground.chain(BERT)
    assert isinstance(bert, ChainClient)
    registered = done(anna, anna.register("node-1", model=b"\x11" * 32))
    words = "0x" + b"node-1".ljust(32, b"\0").hex() + "11" * 32 + "00" * 32
    assert calldata(ground, registered.hash) == (
        "0x0000000000000000000000000000000000000021",
        words,
    )
    beaten = done(anna, anna.heartbeat(77, b"c" * 32))
    assert calldata(ground, beaten.hash) == ("0x0000000000000000000000000000000000000022", "0x")
    status = anna.agent(anna.account)
    assert (status.registered, status.active, status.name, status.samples) == (
        True,
        True,
        "node-1",
        0,
    )
    fund(ground, 1000)
    tree = settle(ground, {ANNA: 300, BERT: 700})
    done(bert, bert.prove(anna.account, 300, tree.proof(anna.account)))
    claimed = done(anna, anna.claim(anna.account, 0, ()))
    assert calldata(ground, claimed.hash) == ("0x0000000000000000000000000000000000000023", "0x")
    assert (anna.claimed(anna.account), anna.claimable(anna.account, 0, ())) == (300, 0)
    done(bert, bert.prove(bert.account, 700, tree.proof(bert.account)))
    done(bert, bert.approve_sponsor(anna.account))
    sponsored = done(anna, anna.claim(bert.account, 0, ()))
    assert calldata(ground, sponsored.hash)[1] == "0x" + account_word(bert.account).hex()


def test_a_chain_that_knows_no_agents_is_refused_before_anything_is_sent() -> None:
    def plain(method: str, answer: Any) -> Any:
        assert method != "eth_sendRawTransaction"
        if method.startswith("agent_"):
            raise RpcError(-32601, "the method does not exist")
        return answer

    with pytest.raises(WrongChain, match="its addresses 0x21 to 0x23 do nothing"):
        plumise(EvmGround(), plain).heartbeat(1, NO_HASH)
    with pytest.raises(WrongChain, match="neither true nor false"):
        plumise(
            EvmGround(),
            lambda method, answer: "yes" if method == "agent_isAgentAccount" else answer,
        ).heartbeat(1, NO_HASH)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"registered": False}, "is not registered"),
        ({"lastHeartbeat": 1}, "the last heartbeat is older"),
    ],
)
def test_a_good_receipt_with_an_unchanged_state_is_not_done(
    changed: dict[str, Any], why: str
) -> None:
    ground = EvmGround()
    first = plumise(ground)
    done(first, first.register("anna"))

    def change(method: str, answer: Any) -> Any:
        if method == "eth_getTransactionReceipt" and answer:
            return answer | {"logs": []}
        return answer | changed if method == "agent_getStatus" else answer

    anna = plumise(ground, change)
    ended = anna.wait(anna.heartbeat(1, NO_HASH), 0)
    assert not ended.done
    assert why in ended.reason


def test_what_plumise_has_not_is_said() -> None:
    anna = plumise(EvmGround())
    with pytest.raises(ChainRefused, match="the profile plumise has no proposals"):
        anna.propose(Proposal(epoch=0, root=b"r" * 32, total=1))
    ground = EvmGround()
    first = plumise(ground)
    done(first, first.register("anna"))
    garbled = plumise(
        ground,
        lambda method, answer: (
            answer | {"totalRewards": "many"} if method == "agent_getStatus" else answer
        ),
    )
    with pytest.raises(ChainUnreachable, match="for a number"):
        garbled.claimed(anna.account)
