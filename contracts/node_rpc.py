"""The calls that a client makes of a node, with typed answers.

Each answer is checked to be what was asked for. Anything else is `ChainUnreachable`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from contracts.abi import call_data, refusal, returned
from contracts.endpoints import Endpoints, RpcError
from contracts.fees import DEFAULT_TIP, Market
from protocol.chain.errors import ChainUnreachable
from protocol.chain.keccak import Address

NO_METHOD = -32601
ZERO = "0x" + "0" * 40

T = TypeVar("T")


class RpcBlock(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of a block that clients read."""

    number: str
    hash: str
    timestamp: str
    base_fee_per_gas: str | None = None


class RpcLog(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    topics: list[str]
    data: str


class TransactionReceipt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of a receipt that clients read."""

    transaction_hash: str
    block_number: str
    block_hash: str
    gas_used: str
    status: str
    effective_gas_price: str = "0x0"
    logs: list[RpcLog] = []


class NodeRpc:
    """One node, behind some endpoints.

    Raises `ChainUnreachable`, `ChainRefused` (estimates and calls) and `RpcError` (sending).
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def ask(self, method: str, *parameters: Any) -> Any:
        """Ask a question that no node refuses. Raises `ChainUnreachable` for any error."""
        try:
            return self._endpoints.ask(method, *parameters)
        except RpcError as error:
            raise ChainUnreachable(
                f"{method} failed with error {error.code}: {error.message}"
            ) from None

    def number(self, method: str, *parameters: Any) -> int:
        return number_of(self.ask(method, *parameters), method)

    def call(
        self, to: Address, signature: str, *arguments: Any, returns: list[str]
    ) -> tuple[Any, ...]:
        """Call a contract without a transaction. Raises `ChainRefused` if it reverts."""
        data = "0x" + call_data(signature, *arguments).hex()
        try:
            answer = self._endpoints.ask("eth_call", {"to": to, "data": data}, "latest")
        except RpcError as error:
            raise refusal(error) from None
        return returned(returns, answer)

    def replay(self, asked: dict[str, Any], block: str) -> None:
        """Repeat a call in an earlier block. Raises `ChainRefused` with the reason."""
        try:
            self._endpoints.ask("eth_call", asked, block)
        except RpcError as error:
            raise refusal(error) from None

    def estimate(self, asked: dict[str, Any]) -> int:
        """Estimate the gas of a transaction. Raises `ChainRefused` if it would fail."""
        try:
            return number_of(self._endpoints.ask("eth_estimateGas", asked), "eth_estimateGas")
        except RpcError as error:
            raise refusal(error) from None

    def offer(self, raw: str) -> None:
        """Offer a signed transaction. Raises `RpcError` with the node's message."""
        self._endpoints.ask("eth_sendRawTransaction", raw)

    def block(self, at: str = "latest") -> RpcBlock:
        found = record_of(
            self.ask("eth_getBlockByNumber", at, False), RpcBlock, "eth_getBlockByNumber"
        )
        if found is None:
            raise ChainUnreachable(f"there is no block {at}")
        return found

    def block_hash(self, number: int) -> str | None:
        """Return the hash of a block; None beyond the head."""
        found = record_of(
            self.ask("eth_getBlockByNumber", hex(number), False), RpcBlock, "eth_getBlockByNumber"
        )
        return None if found is None else found.hash

    def receipt(self, transaction: str) -> TransactionReceipt | None:
        found = record_of(
            self.ask("eth_getTransactionReceipt", transaction),
            TransactionReceipt,
            "eth_getTransactionReceipt",
        )
        if found is not None and found.transaction_hash.lower() != transaction.lower():
            raise ChainUnreachable(
                "eth_getTransactionReceipt returned another transaction's receipt"
            )
        return found

    def logs(self, address: Address, topics: list[Any], first: int, last: int) -> list[RpcLog]:
        """Read events. Raises `RpcError`, for example if the range has too many blocks."""
        asked = {
            "address": address,
            "topics": topics,
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        found = record_of(self._endpoints.ask("eth_getLogs", asked), list[RpcLog], "eth_getLogs")
        if found is None:
            raise ChainUnreachable("the answer to eth_getLogs is empty")
        return found

    def knows(self, transaction: str) -> bool:
        return self.ask("eth_getTransactionByHash", transaction) is not None

    def nonce(self, account: Address, at: str) -> int:
        return self.number("eth_getTransactionCount", account, at)

    def market(self) -> Market:
        """Return what the chain asks for gas now."""
        base = self.block().base_fee_per_gas
        if base is None:
            return Market(base=None, price=self.number("eth_gasPrice"))
        try:
            tip = number_of(
                self._endpoints.ask("eth_maxPriorityFeePerGas"), "eth_maxPriorityFeePerGas"
            )
        except RpcError:
            tip = DEFAULT_TIP
        return Market(base=number_of(base, "baseFeePerGas"), tip=tip)


def number_of(answer: Any, what: str) -> int:
    """Decode a hex quantity. Raises `ChainUnreachable` for anything else."""
    try:
        if isinstance(answer, str) and answer.startswith("0x") and len(answer) <= 66:
            return int(answer, 16)
    except ValueError:
        pass
    raise ChainUnreachable(f"the answer to {what} is not a number: {str(answer)[:80]}")


def record_of(answer: Any, kind: type[T], what: str) -> T | None:
    """Decode a record; null gives None. Raises `ChainUnreachable` for anything else."""
    if answer is None:
        return None
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise ChainUnreachable(f"the answer to {what} is malformed: {error}") from None
