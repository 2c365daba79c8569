"""What a chain says of blocks, transactions, receipts and logs has all that ethers, web3 and viem
read, and it is true.

Ethereum's own names check it: the hash of a transaction and of a block is the hash of its fields,
so that fields from which the same hash comes are complete and right.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import rlp

from contracts.devnet.genesis import dev_key
from contracts.devnet.shapes import created_address
from contracts.signers import signer_of
from protocol.chain.keccak import address_of, keccak256
from tests.contracts.ground import EvmGround
from tests.contracts.levers import Levers

RECEIVER = address_of(b"\x07" * 20)
# Creation code of a contract that answers 42 to any call.
ANSWER = "0x69602a60005260206000f3600052600a6016f3"
FEES = {2: {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}}
ACCESS = [{"address": RECEIVER, "storageKeys": ["0x" + "00" * 31 + "05"]}]
MOST_LOOKS = 2000  # anvil needs one or two

# ethers' formatBlock, formatTransactionResponse, formatReceipt and formatLog, and web3's schemas,
# take these from an answer.
BLOCK = [
    "number",
    "hash",
    "parentHash",
    "sha3Uncles",
    "miner",
    "stateRoot",
    "transactionsRoot",
    "receiptsRoot",
    "logsBloom",
    "difficulty",
    "gasLimit",
    "gasUsed",
    "timestamp",
    "extraData",
    "mixHash",
    "nonce",
    "baseFeePerGas",
    "withdrawalsRoot",
    "withdrawals",
    "blobGasUsed",
    "excessBlobGas",
    "parentBeaconBlockRoot",
    "size",
    "uncles",
    "transactions",
]
TRANSACTION = [
    "hash",
    "type",
    "chainId",
    "nonce",
    "from",
    "to",
    "value",
    "gas",
    "gasPrice",
    "input",
    "v",
    "r",
    "s",
    "blockNumber",
    "blockHash",
    "transactionIndex",
]
RECEIPT = [
    "transactionHash",
    "transactionIndex",
    "blockHash",
    "blockNumber",
    "from",
    "to",
    "cumulativeGasUsed",
    "gasUsed",
    "effectiveGasPrice",
    "contractAddress",
    "logs",
    "logsBloom",
    "status",
    "type",
]
LOG = [
    "address",
    "topics",
    "data",
    "blockNumber",
    "blockHash",
    "transactionHash",
    "transactionIndex",
    "logIndex",
    "removed",
]


def send(ground: Levers, kind: int, *, mined: bool = True, **changed: Any) -> str:
    """A signed transaction of type `kind` from anna: its hash.

    Where blocks are made, it is in one on return.
    """
    signer = signer_of(dev_key("anna"))
    plain: dict[str, Any] = {
        "chainId": ground.chain_id,
        "nonce": int(ground.transport("eth_getTransactionCount", (signer.address, "latest")), 16),
        "to": RECEIVER,
        "value": 5,
        "gas": 200_000,
        **(FEES.get(kind) or {"gasPrice": 10**10}),
    }
    if kind:
        plain |= {"type": kind, "accessList": ACCESS}
    raw = signer.sign_transaction(plain | changed).raw_transaction
    sent = str(ground.transport("eth_sendRawTransaction", ("0x" + raw.hex(),)))
    if mined:
        settle(ground, sent)
    return sent


def settle(ground: Levers, sent: str) -> None:
    """anvil answers before it makes the block: ask until the block exists."""
    for _ in range(MOST_LOOKS):
        if ground.transport("eth_getTransactionReceipt", (sent,)) is not None:
            return
    raise AssertionError(f"{sent} is in no block")


def number(text: str) -> bytes:
    return int(text, 16).to_bytes(32, "big").lstrip(b"\0")


def octets(text: str | None) -> bytes:
    return bytes.fromhex((text or "0x")[2:])


def hash_of_transaction(said: dict[str, Any]) -> str:
    kind = int(said["type"], 16)
    fees = ("maxPriorityFeePerGas", "maxFeePerGas") if kind == 2 else ("gasPrice",)
    fields: list[Any] = [number(said[name]) for name in ("nonce", *fees, "gas")]
    fields += [octets(said["to"]), number(said["value"]), octets(said["input"])]
    if kind:
        fields.insert(0, number(said["chainId"]))
        fields.append(
            [
                [octets(one["address"]), [octets(slot) for slot in one["storageKeys"]]]
                for one in said["accessList"]
            ]
        )
        assert said["v"] == said["yParity"]
    fields += [number(said[name]) for name in ("v", "r", "s")]
    return "0x" + keccak256((bytes([kind]) if kind else b"") + rlp.encode(fields)).hex()


def hash_of_block(said: dict[str, Any]) -> str:
    """The hash over the header's fields in Cancun's order (EIP-4844, EIP-4788)."""
    order = "parentHash sha3Uncles miner stateRoot transactionsRoot receiptsRoot logsBloom "
    order += "difficulty number gasLimit gasUsed timestamp extraData mixHash nonce baseFeePerGas "
    order += "withdrawalsRoot blobGasUsed excessBlobGas parentBeaconBlockRoot"
    numbers = {
        "difficulty",
        "number",
        "gasLimit",
        "gasUsed",
        "timestamp",
        "baseFeePerGas",
        "blobGasUsed",
        "excessBlobGas",
    }
    fields = [
        number(said[name]) if name in numbers else octets(said[name]) for name in order.split()
    ]
    return "0x" + keccak256(rlp.encode(fields)).hex()


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_transaction_says_all_that_its_hash_is_made_of(ground: Levers, kind: int) -> None:
    sent = send(ground, kind)
    alone = ground.transport("eth_getTransactionByHash", (sent,))
    block = ground.transport("eth_getBlockByNumber", ("latest", True))
    receipt = ground.transport("eth_getTransactionReceipt", (sent,))
    [inside] = block["transactions"]
    assert set(TRANSACTION) <= set(inside)
    assert inside == alone
    assert hash_of_transaction(inside) == inside["hash"] == sent
    assert int(inside["gasPrice"], 16) == int(receipt["effectiveGasPrice"], 16)
    assert int(receipt["type"], 16) == int(inside["type"], 16) == kind
    assert set(RECEIPT) <= set(receipt)
    assert receipt["contractAddress"] is None
    for asked, parameters in (
        ("eth_getTransactionByBlockNumberAndIndex", (block["number"], "0x0")),
        ("eth_getTransactionByBlockHashAndIndex", (block["hash"], "0x0")),
    ):
        assert ground.transport(asked, parameters) == inside
    assert ground.transport("eth_getBlockReceipts", (block["number"],)) == [receipt]
    assert ground.transport("eth_getBlockTransactionCountByNumber", (block["number"],)) == "0x1"


def test_a_block_says_all_that_its_hash_is_made_of(ground: Levers) -> None:
    send(ground, 2)
    ground.advance(3)  # an empty one
    head = int(ground.transport("eth_blockNumber", ()), 16)
    for at in range(head + 1):
        block = ground.transport("eth_getBlockByNumber", (hex(at), False))
        assert set(BLOCK) <= set(block)
        assert all(isinstance(one, str) for one in block["transactions"])
        # anvil puts fields into its first block that it does not hash.
        if at or isinstance(ground, EvmGround):
            assert hash_of_block(block) == block["hash"]
        assert ground.transport("eth_getBlockByHash", (block["hash"], False)) == block
    assert ground.transport("eth_getBlockByHash", ("0x" + "11" * 32, False)) is None


def test_a_transaction_that_waits_is_in_no_block(ground: Levers) -> None:
    ground.stop(True)
    sent = send(ground, 2, mined=False)
    waiting = ground.transport("eth_getTransactionByHash", (sent,))
    assert [waiting[name] for name in ("blockNumber", "blockHash", "transactionIndex")] == [
        None
    ] * 3
    assert hash_of_transaction(waiting) == sent
    assert ground.transport("eth_getTransactionReceipt", (sent,)) is None
    ground.stop(False)
    settle(ground, sent)
    assert ground.transport("eth_getTransactionReceipt", (sent,))["status"] == "0x1"


def test_a_contract_that_is_made_is_named_and_answers(ground: Levers) -> None:
    asked = {"from": ground.account("anna"), "data": ANSWER}
    # 21,000 and EIP-2's 32,000.
    assert int(ground.transport("eth_estimateGas", (asked,)), 16) > 53_000
    assert len(octets(ground.transport("eth_call", (asked, "latest")))) == 10
    sent = send(ground, 2, to="", value=0, data=ANSWER)
    receipt = ground.transport("eth_getTransactionReceipt", (sent,))
    assert receipt["to"] is None
    assert (
        int(ground.transport("eth_call", ({"to": receipt["contractAddress"]}, "latest")), 16) == 42
    )


def test_a_logs_fields_and_those_of_one_block(ground: Levers) -> None:
    settle(ground, ground.chain("anna").register("anna").hash)
    block = ground.transport("eth_getBlockByNumber", ("latest", False))
    [receipt] = ground.transport("eth_getBlockReceipts", ("latest",))
    logs = ground.transport("eth_getLogs", ({"blockHash": block["hash"]},))
    assert logs
    assert (
        receipt["logs"]
        == logs
        == ground.transport("eth_getLogs", ({"fromBlock": block["number"], "toBlock": "latest"},))
    )
    assert all(set(LOG) <= set(one) for one in logs)
    assert block["logsBloom"] == receipt["logsBloom"] != "0x" + "00" * 256


def test_fee_history_has_a_fee_more_than_blocks(ground: Levers) -> None:
    send(ground, 2)
    said = ground.transport("eth_feeHistory", ("0x2", "latest", [25, 75]))
    assert int(said["oldestBlock"], 16) == int(ground.transport("eth_blockNumber", ()), 16) - 1
    assert (len(said["baseFeePerGas"]), len(said["gasUsedRatio"]), len(said["reward"])) == (3, 2, 2)
    assert [int(tip, 16) for tip in said["reward"][-1]] == [10**9, 10**9]


def test_percentiles_that_are_none_are_refused() -> None:
    request = {"id": 1, "method": "eth_feeHistory", "params": ["0x1", "latest", [75, 25]]}
    assert (
        "percentile"
        in json.loads(EvmGround().rpc.answer(json.dumps(request).encode()))["error"]["message"]
    )


def test_where_a_contract_is_put_follows_from_its_maker() -> None:
    """The example of many explanations of CREATE: 0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0 and
    its first nonces.
    """

    class Made:
        sender = bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0")
        nonce = 0

    assert created_address(Made()).lower() == "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    Made.nonce = 1
    assert created_address(Made()).lower() == "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8"
