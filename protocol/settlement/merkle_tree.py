"""The Merkle tree of a settlement, byte for byte OpenZeppelin's standard tree.

Its leaves are (account, total ever earned). A leaf is keccak256(keccak256(abi.encode(address,
uint256))). It is hashed twice, so that no inner node (64 bytes, hashed once) can pass for a leaf.
Leaves are sorted by their hash, and pairs are sorted before they are hashed, so a proof is a plain
list of siblings. The layout is that of @openzeppelin/merkle-tree: node i of the array has the
children 2i + 1 and 2i + 2, and the leaves are at its end in reverse order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol.chain.keccak import Address, account_bytes, address_of, keccak256

MAX_TOTAL = (1 << 256) - 1
"""The largest uint256."""


def leaf_of(account: Address, total: int) -> bytes:
    """Return the leaf of `account` with `total` base units ever earned.

    Raises `ValueError` for an invalid address or a total beyond uint256.
    """
    if not 0 <= total <= MAX_TOTAL:
        raise ValueError(f"{total} is not a uint256")
    return keccak256(keccak256(bytes(12) + account_bytes(account) + total.to_bytes(32, "big")))


def node_of(left: bytes, right: bytes) -> bytes:
    """Return the parent of two nodes, in either order."""
    return keccak256(left + right if left < right else right + left)


def leads_to(root: bytes, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether `proof` leads from `leaf` to `root`: what the contract checks."""
    for sibling in proof:
        leaf = node_of(leaf, sibling)
    return leaf == root


class SettlementTree:
    """The tree over all totals. The same entries in any order give the same tree."""

    def __init__(self, entries: Iterable[tuple[Address, int]]) -> None:
        """Raises `ValueError` for no entries, for a repeated account, and as `leaf_of`."""
        totals: dict[Address, int] = {}
        for account, total in entries:
            address = address_of(account_bytes(account))
            if address in totals:
                raise ValueError(f"{address} occurs twice")
            totals[address] = total
        if not totals:
            raise ValueError("a settlement without accounts has no tree")
        leaves = sorted((leaf_of(account, total), account) for account, total in totals.items())
        count = len(leaves)
        nodes = [b""] * (2 * count - 1)
        self._place: dict[Address, int] = {}
        for index, (leaf, account) in enumerate(leaves):
            place = len(nodes) - 1 - index
            nodes[place] = leaf
            self._place[account] = place
        for place in range(count - 2, -1, -1):
            nodes[place] = node_of(nodes[2 * place + 1], nodes[2 * place + 2])
        self._nodes = nodes
        self.totals = totals

    @property
    def root(self) -> bytes:
        """32 bytes."""
        return self._nodes[0]

    @property
    def total(self) -> int:
        """The sum of all totals, which the pool must be able to cover."""
        return sum(self.totals.values())

    def proof(self, account: Address) -> tuple[bytes, ...]:
        """Return the siblings from the leaf of `account` up.

        Raises `KeyError` for an unknown account.
        """
        place = self._place[address_of(account_bytes(account))]
        siblings = []
        while place > 0:
            siblings.append(self._nodes[place + 1 if place % 2 else place - 1])
            place = (place - 1) // 2
        return tuple(siblings)
