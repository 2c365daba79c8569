"""Blocks, transactions, receipts and logs have the fields that ethers, web3 and viem read.

The hash of a transaction or a block is the hash of its fields. Fields that give the same hash are
therefore complete and correct.
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
from tests.contracts.testnet_controls import ControlledTestnet
from tests.contracts.testnets import EvmTestnet

RECEIVER = address_of(b"\x07" * 20)
# Creation code of a contract that answers 42 to any call.
ANSWER = "0x69602a60005260206000f3600052600a6016f3"
FEES = {2: {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9}}
ACCESS = [{"address": RECEIVER, "storageKeys": ["0x" + "00" * 31 + "05"]}]
# anvil needs one or two attempts.
MAX_ATTEMPTS = 2000

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


def send(testnet: ControlledTestnet, kind: int, *, mined: bool = True, **changed: Any) -> str:
    """Send a signed transaction of type `kind` from anna, and return its hash.

    If `mined`, the transaction is in a block on return.
    """
    signer = signer_of(dev_key("anna"))
    plain: dict[str, Any] = {
        "chainId": testnet.chain_id,
        "nonce": int(testnet.transport("eth_getTransactionCount", (signer.address, "latest")), 16),
        "to": RECEIVER,
        "value": 5,
        "gas": 200_000,
        **(FEES.get(kind) or {"gasPrice": 10**10}),
    }
    if kind:
        plain |= {"type": kind, "accessList": ACCESS}
    raw = signer.sign_transaction(plain | changed).raw_transaction
    sent = str(testnet.transport("eth_sendRawTransaction", ("0x" + raw.hex(),)))
    if mined:
        settle(testnet, sent)
    return sent


def settle(testnet: ControlledTestnet, sent: str) -> None:
    """Ask until the transaction is in a block, since anvil answers before it makes the block."""
    for _ in range(MAX_ATTEMPTS):
        if testnet.transport("eth_getTransactionReceipt", (sent,)) is not None:
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
    """Return the hash of the header's fields in Cancun's order (EIP-4844, EIP-4788)."""
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
def test_a_transaction_has_every_field_that_its_hash_covers(
    testnet: ControlledTestnet, kind: int
) -> None:
    sent = send(testnet, kind)
    alone = testnet.transport("eth_getTransactionByHash", (sent,))
    block = testnet.transport("eth_getBlockByNumber", ("latest", True))
    receipt = testnet.transport("eth_getTransactionReceipt", (sent,))
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
        assert testnet.transport(asked, parameters) == inside
    assert testnet.transport("eth_getBlockReceipts", (block["number"],)) == [receipt]
    assert testnet.transport("eth_getBlockTransactionCountByNumber", (block["number"],)) == "0x1"


def test_a_block_has_every_field_that_its_hash_covers(testnet: ControlledTestnet) -> None:
    send(testnet, 2)
    # The second block is empty.
    testnet.advance(3)
    head = int(testnet.transport("eth_blockNumber", ()), 16)
    for at in range(head + 1):
        block = testnet.transport("eth_getBlockByNumber", (hex(at), False))
        assert set(BLOCK) <= set(block)
        assert all(isinstance(one, str) for one in block["transactions"])
        # anvil puts fields into its first block that it does not hash.
        if at or isinstance(testnet, EvmTestnet):
            assert hash_of_block(block) == block["hash"]
        assert testnet.transport("eth_getBlockByHash", (block["hash"], False)) == block
    assert testnet.transport("eth_getBlockByHash", ("0x" + "11" * 32, False)) is None


def test_a_pending_transaction_is_in_no_block(testnet: ControlledTestnet) -> None:
    testnet.pause_mining(True)
    sent = send(testnet, 2, mined=False)
    waiting = testnet.transport("eth_getTransactionByHash", (sent,))
    assert [waiting[name] for name in ("blockNumber", "blockHash", "transactionIndex")] == [
        None
    ] * 3
    assert hash_of_transaction(waiting) == sent
    assert testnet.transport("eth_getTransactionReceipt", (sent,)) is None
    testnet.pause_mining(False)
    settle(testnet, sent)
    assert testnet.transport("eth_getTransactionReceipt", (sent,))["status"] == "0x1"


def test_a_created_contract_has_an_address_and_answers(testnet: ControlledTestnet) -> None:
    asked = {"from": testnet.account("anna"), "data": ANSWER}
    # A creation costs 21,000 and EIP-2's 32,000.
    assert int(testnet.transport("eth_estimateGas", (asked,)), 16) > 53_000
    assert len(octets(testnet.transport("eth_call", (asked, "latest")))) == 10
    sent = send(testnet, 2, to="", value=0, data=ANSWER)
    receipt = testnet.transport("eth_getTransactionReceipt", (sent,))
    assert receipt["to"] is None
    assert (
        int(testnet.transport("eth_call", ({"to": receipt["contractAddress"]}, "latest")), 16) == 42
    )


def test_logs_have_all_fields_and_are_found_by_block(testnet: ControlledTestnet) -> None:
    settle(testnet, testnet.chain("anna").register("anna").hash)
    block = testnet.transport("eth_getBlockByNumber", ("latest", False))
    [receipt] = testnet.transport("eth_getBlockReceipts", ("latest",))
    logs = testnet.transport("eth_getLogs", ({"blockHash": block["hash"]},))
    assert logs
    assert (
        receipt["logs"]
        == logs
        == testnet.transport("eth_getLogs", ({"fromBlock": block["number"], "toBlock": "latest"},))
    )
    assert all(set(LOG) <= set(one) for one in logs)
    assert block["logsBloom"] == receipt["logsBloom"] != "0x" + "00" * 256


def test_fee_history_has_one_more_fee_than_blocks(testnet: ControlledTestnet) -> None:
    send(testnet, 2)
    said = testnet.transport("eth_feeHistory", ("0x2", "latest", [25, 75]))
    assert int(said["oldestBlock"], 16) == int(testnet.transport("eth_blockNumber", ()), 16) - 1
    assert (len(said["baseFeePerGas"]), len(said["gasUsedRatio"]), len(said["reward"])) == (3, 2, 2)
    assert [int(tip, 16) for tip in said["reward"][-1]] == [10**9, 10**9]


def test_invalid_percentiles_are_refused() -> None:
    request = {"id": 1, "method": "eth_feeHistory", "params": ["0x1", "latest", [75, 25]]}
    assert (
        "percentile"
        in json.loads(EvmTestnet().rpc.answer(json.dumps(request).encode()))["error"]["message"]
    )


def test_the_address_of_a_contract_follows_from_its_creator() -> None:
    """The vectors are the common example for CREATE: account 0x6ac7…dbf0 with nonces 0 and 1."""

    class Made:
        sender = bytes.fromhex("6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0")
        nonce = 0

    assert created_address(Made()).lower() == "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d"
    Made.nonce = 1
    assert created_address(Made()).lower() == "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8"
