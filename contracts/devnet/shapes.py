"""Blocks, transactions, receipts and logs in geth's JSON, after the execution-apis specification.

Every field that the specification requires is present, since clients read more than they need:
ethers, for example, parses the signature of each transaction in a block. Fields that only some
types of transaction have appear in those types alone.
"""

from __future__ import annotations

from typing import Any

import rlp

from contracts.devnet.evm_chain import MinedTransaction
from protocol.chain.keccak import Address, address_of, keccak256

# The types of EIP-2718.
LEGACY, ACCESS_LIST, FEE_MARKET, BLOB = 0, 1, 2, 3


def hex_of(data: bytes) -> str:
    """Encode bytes as 0x and two digits for each byte."""
    return "0x" + bytes(data).hex()


def block_shape(block: Any, inside: list[MinedTransaction] | None) -> dict[str, Any]:
    """Encode a block with its transactions `inside`, or without them with their hashes."""
    header = block.header
    return {
        "number": hex(header.block_number),
        "hash": hex_of(header.hash),
        "parentHash": hex_of(header.parent_hash),
        "sha3Uncles": hex_of(header.uncles_hash),
        "miner": address_of(header.coinbase),
        "stateRoot": hex_of(header.state_root),
        "transactionsRoot": hex_of(header.transaction_root),
        "receiptsRoot": hex_of(header.receipt_root),
        "logsBloom": _bloom(header.bloom),
        "difficulty": hex(header.difficulty),
        "totalDifficulty": "0x0",
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": hex_of(header.extra_data),
        "mixHash": hex_of(header.mix_hash),
        "nonce": hex_of(header.nonce),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": hex_of(header.withdrawals_root),
        "withdrawals": [],
        "blobGasUsed": hex(header.blob_gas_used),
        "excessBlobGas": hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": hex_of(header.parent_beacon_block_root),
        "size": hex(len(rlp.encode(block))),
        "uncles": [],
        "transactions": [hex_of(transaction.hash) for transaction in block.transactions]
        if inside is None
        else [transaction_shape(found.transaction, found) for found in inside],
    }


def transaction_shape(transaction: Any, found: MinedTransaction | None) -> dict[str, Any]:
    """Encode a transaction in its block; one that waits for a block has no `found`."""
    kind = _kind(transaction)
    shape: dict[str, Any] = {
        "hash": hex_of(transaction.hash),
        "type": hex(kind),
        "chainId": hex(transaction.chain_id),
        "nonce": hex(transaction.nonce),
        "from": address_of(transaction.sender),
        "to": address_of(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "gasPrice": hex(transaction.max_fee_per_gas if found is None else price_of(found)),
        "input": hex_of(transaction.data),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
        "blockNumber": None if found is None else hex(found.block.number),
        "blockHash": None if found is None else hex_of(found.block.hash),
        "transactionIndex": None if found is None else hex(found.index),
    }
    if kind == LEGACY:
        return shape | {"v": hex(transaction.v)}
    parity = hex(transaction.y_parity)
    shape |= {"v": parity, "yParity": parity, "accessList": _access_list(transaction)}
    if kind >= FEE_MARKET:
        shape |= {
            "maxFeePerGas": hex(transaction.max_fee_per_gas),
            "maxPriorityFeePerGas": hex(transaction.max_priority_fee_per_gas),
        }
    if kind == BLOB:
        shape |= {
            "maxFeePerBlobGas": hex(transaction.max_fee_per_blob_gas),
            "blobVersionedHashes": [hex_of(name) for name in transaction.blob_versioned_hashes],
        }
    return shape


def receipt_shape(found: MinedTransaction) -> dict[str, Any]:
    """Encode a receipt."""
    transaction = found.transaction
    return {
        "transactionHash": hex_of(transaction.hash),
        "transactionIndex": hex(found.index),
        "blockHash": hex_of(found.block.hash),
        "blockNumber": hex(found.block.number),
        "from": address_of(transaction.sender),
        "to": address_of(transaction.to) if transaction.to else None,
        "cumulativeGasUsed": hex(found.receipt.gas_used),
        "gasUsed": hex(found.gas),
        "effectiveGasPrice": hex(price_of(found)),
        "contractAddress": None if transaction.to else created_address(transaction),
        "logs": logs_shape(found),
        "logsBloom": _bloom(found.receipt.bloom),
        "status": hex(int.from_bytes(found.receipt.state_root, "big")),
        "type": hex(_kind(transaction)),
    }


def logs_shape(found: MinedTransaction) -> list[dict[str, Any]]:
    """Encode the logs of one transaction, in order."""
    return [
        {
            "address": address_of(log.address),
            "topics": [f"0x{topic:064x}" for topic in log.topics],
            "data": hex_of(log.data),
            "blockNumber": hex(found.block.number),
            "blockHash": hex_of(found.block.hash),
            "blockTimestamp": hex(found.block.header.timestamp),
            "transactionHash": hex_of(found.transaction.hash),
            "transactionIndex": hex(found.index),
            "logIndex": hex(found.first_log + index),
            "removed": False,
        }
        for index, log in enumerate(found.receipt.logs)
    ]


def price_of(found: MinedTransaction) -> int:
    """Return the price of each unit of gas, in wei."""
    transaction, base_fee = found.transaction, found.block.header.base_fee_per_gas
    return int(min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas))


def created_address(transaction: Any) -> Address:
    """Return the address of the contract that a transaction without receiver creates."""
    return address_of(keccak256(rlp.encode([transaction.sender, transaction.nonce]))[12:])


def _kind(transaction: Any) -> int:
    return int(getattr(transaction, "type_id", None) or LEGACY)


def _access_list(transaction: Any) -> list[dict[str, Any]]:
    return [
        {"address": address_of(account), "storageKeys": [f"0x{slot:064x}" for slot in slots]}
        for account, slots in transaction.access_list
    ]


def _bloom(bloom: int) -> str:
    return f"0x{bloom:0512x}"
