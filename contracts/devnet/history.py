"""Answers `eth_feeHistory`: base fees, how full blocks were, and the tips that were paid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.devnet.evm import Devnet
from contracts.devnet.evm_chain import MinedTransaction, base_fee_of
from contracts.devnet.reverts import RpcRefusal
from contracts.devnet.shapes import price_of

# geth answers about as many blocks at once.
MAX_BLOCKS = 1024


def fee_history(
    devnet: Devnet, count: int, last: int | None, percentiles: Sequence[float] | None
) -> dict[str, Any]:
    """Return the fees in `count` blocks up to number `last`, or up to the head.

    Raises `RpcRefusal` for bad percentiles.
    """
    asked = [float(one) for one in percentiles or ()]
    if asked != sorted(asked) or any(not 0 <= one <= 100 for one in asked):
        raise RpcRefusal("invalid reward percentile: percentiles are rising numbers from 0 to 100")
    with devnet.lock:
        head = devnet.head.block_number
        newest = head if last is None else min(last, head)
        numbers = range(max(0, newest - min(max(count, 0), MAX_BLOCKS) + 1), newest + 1)
        blocks = [block for number in numbers if (block := devnet.block(number)) is not None]
        after = devnet.header(newest + 1)
        next_fee = devnet.base_fee() if after is None else base_fee_of(after)
        answer: dict[str, Any] = {
            "oldestBlock": hex(numbers.start if numbers else newest),
            "baseFeePerGas": [hex(base_fee_of(block.header)) for block in blocks] + [hex(next_fee)],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            answer["reward"] = [_tips(list(devnet.receipts(block)), asked) for block in blocks]
        return answer


def _tips(inside: Sequence[MinedTransaction], percentiles: Sequence[float]) -> list[str]:
    """Return the tip at each percentile of a block's gas, in wei; 0 for an empty block."""
    paid = sorted(
        (price_of(found) - found.block.header.base_fee_per_gas, found.gas) for found in inside
    )
    whole = sum(gas for _, gas in paid)
    return [hex(_tip_at(paid, whole * one / 100)) for one in percentiles]


def _tip_at(paid: Sequence[tuple[int, int]], gas_wanted: float) -> int:
    """Return the tip of the transaction that used unit `gas_wanted` of the block's gas.

    `paid` is pairs of tip and gas, in order.
    """
    passed = 0
    for tip, gas in paid:
        passed += gas
        if passed >= gas_wanted:
            return tip
    return 0
