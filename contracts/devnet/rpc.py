"""The devnet's JSON-RPC: one request in, one answer out, without sockets.

It answers the calls that our clients make as geth does, Plumise's `agent_*`, a faucet, and calls
for tests. Unknown methods and wrong parameters get JSON-RPC's own error codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from eth_account import Account

from contracts.devnet.agents import agent_status, is_agent
from contracts.devnet.evm import Devnet
from contracts.devnet.evm_chain import MinedTransaction
from contracts.devnet.genesis import COIN, FAUCET, dev_key
from contracts.devnet.history import fee_history
from contracts.devnet.reverts import RpcRefusal
from contracts.devnet.rpc_parameters import account_of, bytes_of, call_of, int_of, matches
from contracts.devnet.shapes import (
    block_shape,
    hex_of,
    logs_shape,
    receipt_shape,
    transaction_shape,
)
from protocol.chain.keccak import Address, account_bytes, address_of

# The range of one eth_getLogs, which public endpoints limit, too.
MAX_LOG_BLOCKS = 10_000
FAUCET_COINS = 100
CALL_GAS = 30_000_000
NO_BLOCK = -1
# "0x" and 32 bytes.
HASH_DIGITS = 2 + 64

INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, SERVER_ERROR, REVERTED = (
    -32600,
    -32601,
    -32602,
    -32000,
    3,
)


class Rpc:
    """The methods of one `Devnet`.

    With `auto_mine`, each transaction gets a block of its own at once.
    """

    def __init__(self, devnet: Devnet, *, auto_mine: bool) -> None:
        self._devnet = devnet
        self.auto_mine = auto_mine
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "hypergpu-devnet",
            "net_version": lambda: str(devnet.chain_id),
            "eth_chainId": lambda: hex(devnet.chain_id),
            "eth_blockNumber": lambda: hex(devnet.head.block_number),
            "eth_gasPrice": lambda: hex(devnet.base_fee() + 10**9),
            "eth_maxPriorityFeePerGas": lambda: hex(10**9),
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_getBalance": lambda who, at="latest": hex(
                devnet.balance(account_of(who), self._number(at))
            ),
            "eth_getTransactionCount": self._transaction_count,
            "eth_getCode": lambda who, at="latest": hex_of(
                devnet.code(account_of(who), self._number(at))
            ),
            "eth_getStorageAt": lambda who, slot, at="latest": (
                f"0x{devnet.storage(account_of(who), int_of(slot), self._number(at)):064x}"
            ),
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send_raw,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getTransactionByHash": self._transaction,
            "eth_getBlockByNumber": lambda at, full=False: self._block(self._number(at), full),
            "eth_getBlockByHash": lambda block_hash, full=False: self._block(
                self._hashed(block_hash), full
            ),
            "eth_getBlockReceipts": lambda at: self._in_block(self._named(at), receipt_shape),
            "eth_getBlockTransactionCountByNumber": lambda at: self._count(self._number(at)),
            "eth_getBlockTransactionCountByHash": lambda block_hash: self._count(
                self._hashed(block_hash)
            ),
            "eth_getTransactionByBlockNumberAndIndex": lambda at, index: self._at(
                self._number(at), index
            ),
            "eth_getTransactionByBlockHashAndIndex": lambda block_hash, index: self._at(
                self._hashed(block_hash), index
            ),
            "eth_getLogs": self._logs,
            "eth_feeHistory": lambda count, at="latest", tips=None: fee_history(
                devnet, int_of(count), self._number(at), tips
            ),
            "net_listening": lambda: True,
            "agent_isAgentAccount": lambda who, _at="latest": is_agent(self._contract, who),
            "agent_getStatus": lambda who, _at="latest": agent_status(self._contract, who),
            "hypergpu_faucet": self._faucet,
            "evm_mine": self._mine,
            "evm_increaseTime": self._increase_time,
            "evm_snapshot": lambda: hex(devnet.head.block_number),
            "evm_revert": self._go_back,
            "hypergpu_dropTransaction": lambda transaction: devnet.drop(bytes_of(transaction)),
        }

    def answer(self, request: bytes) -> bytes:
        """Answer one request or a batch. No request makes this raise."""
        try:
            asked = json.loads(request)
        except ValueError:
            return json.dumps(_error(None, -32700, "the request is not JSON")).encode()
        if isinstance(asked, list):
            return json.dumps([self._one(each) for each in asked]).encode()
        return json.dumps(self._one(asked)).encode()

    def _one(self, asked: Any) -> dict[str, Any]:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _error(None, INVALID_REQUEST, "not a request")
        number, method, parameters = asked.get("id"), asked["method"], asked.get("params") or []
        handler = self._methods.get(method)
        if handler is None:
            return _error(number, NO_METHOD, f"the method {method} does not exist/is not available")
        if not isinstance(parameters, list):
            return _error(number, INVALID_PARAMS, "params must be a list")
        try:
            return {"jsonrpc": "2.0", "id": number, "result": handler(*parameters)}
        except RpcRefusal as refused:
            if refused.output is not None:
                return _error(number, REVERTED, str(refused), hex_of(refused.output))
            return _error(number, SERVER_ERROR, str(refused))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            return _error(number, INVALID_PARAMS, f"invalid params: {error}")

    # ---------------------------------------------------------------- calls and transactions

    def _number(self, at: Any) -> int | None:
        """Decode a block number; the head is None. Raises `ValueError` for other text."""
        if at in ("latest", "pending", "safe", "finalized"):
            return None
        return 0 if at == "earliest" else int_of(at)

    def _transaction_count(self, who: str, at: Any = "latest") -> str:
        return hex(
            self._devnet.nonce(account_of(who), self._number(at), with_waiting=at == "pending")
        )

    def _call(self, asked: dict[str, Any], at: Any = "latest", *_overrides: Any) -> str:
        return hex_of(
            self._devnet.call(
                **call_of(asked),
                gas=int_of(asked.get("gas", hex(CALL_GAS))),
                number=self._number(at),
            )
        )

    def _estimate(self, asked: dict[str, Any], *_at: Any) -> str:
        return hex(self._devnet.estimate(**call_of(asked)))

    def _send_raw(self, raw: str) -> str:
        transaction = self._devnet.submit(bytes_of(raw))
        if self.auto_mine:
            self._devnet.mine()
        return hex_of(transaction)

    def _receipt(self, transaction: str) -> dict[str, Any] | None:
        found = self._devnet.included(bytes_of(transaction))
        return None if found is None else receipt_shape(found)

    def _transaction(self, transaction: str) -> dict[str, Any] | None:
        found = self._devnet.included(bytes_of(transaction))
        if found is not None:
            return transaction_shape(found.transaction, found)
        waiting = self._devnet.waiting(bytes_of(transaction))
        return None if waiting is None else transaction_shape(waiting, None)

    def _hashed(self, block_hash: str) -> int:
        """Return the number of the block with this hash, or `NO_BLOCK`."""
        number = self._devnet.number_of(bytes_of(block_hash))
        return NO_BLOCK if number is None else number

    def _named(self, at: Any) -> int | None:
        """Decode a parameter that is a block's number or hash."""
        return (
            self._hashed(at) if isinstance(at, str) and len(at) == HASH_DIGITS else self._number(at)
        )

    def _found(self, number: int | None) -> Any | None:
        return self._devnet.block(self._devnet.head.block_number if number is None else number)

    def _block(self, number: int | None, full: bool) -> dict[str, Any] | None:
        block = self._found(number)
        return (
            None
            if block is None
            else block_shape(block, list(self._devnet.receipts(block)) if full else None)
        )

    def _count(self, number: int | None) -> str | None:
        block = self._found(number)
        return None if block is None else hex(len(block.transactions))

    def _in_block(
        self, number: int | None, shape: Callable[[MinedTransaction], dict[str, Any]]
    ) -> list[dict[str, Any]] | None:
        block = self._found(number)
        return None if block is None else [shape(found) for found in self._devnet.receipts(block)]

    def _at(self, number: int | None, index: Any) -> dict[str, Any] | None:
        inside = (
            self._in_block(number, lambda found: transaction_shape(found.transaction, found)) or []
        )
        return inside[int_of(index)] if 0 <= int_of(index) < len(inside) else None

    def _logs(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        head = self._devnet.head.block_number
        if "blockHash" in asked:
            first = last = self._hashed(asked["blockHash"])
            if first == NO_BLOCK:
                raise RpcRefusal("unknown block")
        else:
            begin, end = (
                self._number(asked.get(key, "latest")) for key in ("fromBlock", "toBlock")
            )
            first, last = head if begin is None else begin, head if end is None else min(end, head)
        if last - first >= MAX_LOG_BLOCKS:
            raise RpcRefusal(f"query exceeds max block range {MAX_LOG_BLOCKS}")
        addresses = asked.get("address")
        wanted = {
            account.lower()
            for account in ([addresses] if isinstance(addresses, str) else addresses or [])
        }
        topics = asked.get("topics") or []
        logs: list[dict[str, Any]] = []
        for block in self._devnet.busy_blocks(first, last):
            for found in self._devnet.receipts(block):
                logs += [
                    log
                    for log in logs_shape(found)
                    if (not wanted or log["address"].lower() in wanted)
                    and matches(log["topics"], topics)
                ]
        return logs

    # ---------------------------------------------------------------- Plumise's own, and ours

    def _contract(self, to: Address, data: bytes) -> bytes:
        return self._devnet.call(
            sender=bytes(20), to=account_bytes(to), data=data, value=0, gas=CALL_GAS
        )

    def _faucet(self, who: str) -> str:
        """Send worthless coins. Returns the transaction's hash."""
        account = Account.from_key(dev_key(FAUCET))
        with self._devnet.lock:
            raw = account.sign_transaction(
                {
                    "chainId": self._devnet.chain_id,
                    "nonce": self._devnet.nonce(account_bytes(account.address), with_waiting=True),
                    "to": address_of(account_of(who)),
                    "value": FAUCET_COINS * COIN,
                    "gas": 100_000,
                    "maxFeePerGas": 2 * self._devnet.base_fee() + 10**9,
                    "maxPriorityFeePerGas": 10**9,
                }
            ).raw_transaction
            return self._send_raw(hex_of(raw))

    def _mine(self, *_at: Any) -> str:
        self._devnet.mine()
        return "0x0"

    def _increase_time(self, seconds: Any) -> str:
        self._devnet.advance(int_of(seconds))
        return hex(int_of(seconds))

    def _go_back(self, number: str) -> bool:
        self._devnet.go_back(int_of(number))
        return True


def _error(number: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    return {
        "jsonrpc": "2.0",
        "id": number,
        "error": error if data is None else error | {"data": data},
    }
