"""The settlement tree equals OpenZeppelin's.

`vectors/merkle_tree.mjs` makes the expected roots and proofs with OpenZeppelin's own package.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chain.keccak import account_bytes, address_of, checked_address, keccak256
from protocol.settlement.merkle_tree import MAX_TOTAL, SettlementTree, leads_to, leaf_of


class Entry(msgspec.Struct):
    account: str
    total: int
    leaf: str
    proof: list[str]


class Tree(msgspec.Struct):
    root: str
    entries: list[Entry]


class Vectors(msgspec.Struct):
    trees: list[Tree]


VECTORS = msgspec.json.decode(
    (Path(__file__).parent.parent / "vectors" / "merkle_tree.json").read_bytes(),
    type=Vectors,
    strict=False,
)
accounts = st.binary(min_size=20, max_size=20).map(address_of)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.mark.parametrize("tree", VECTORS.trees, ids=lambda tree: f"{len(tree.entries)} accounts")
def test_roots_leaves_and_proofs_are_openzeppelins(tree: Tree) -> None:
    ours = SettlementTree((entry.account, entry.total) for entry in tree.entries)
    assert ours.root == unhex(tree.root)
    for entry in tree.entries:
        assert leaf_of(checked_address(entry.account), entry.total) == unhex(entry.leaf)
        assert [step.hex() for step in ours.proof(entry.account)] == [
            step.removeprefix("0x") for step in entry.proof
        ]


@given(st.dictionaries(accounts, st.integers(0, MAX_TOTAL), min_size=1, max_size=20), st.randoms())
def test_any_order_is_the_same_tree_and_every_proof_leads_to_it(
    totals: dict[str, int], random: object
) -> None:
    entries = list(totals.items())
    tree = SettlementTree(entries)
    random.shuffle(entries)  # type: ignore[attr-defined]
    assert SettlementTree(entries).root == tree.root
    for account, total in entries:
        assert leads_to(tree.root, leaf_of(account, total), tree.proof(account))
        assert not leads_to(tree.root, leaf_of(account, total ^ 1), tree.proof(account))
    assert tree.total == sum(totals.values())


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    """Leaves are hashed twice, so the two children of the root are no proof of a leaf."""
    entries = [(address_of(bytes(19) + bytes([i])), i) for i in range(1, 3)]
    tree = SettlementTree(entries)
    left, right = sorted(leaf_of(*entry) for entry in entries)
    assert keccak256(left + right) == tree.root
    assert keccak256(keccak256(left + right)) != tree.root


def test_invalid_settlements_are_refused() -> None:
    one = address_of(bytes(20))
    with pytest.raises(ValueError, match="occurs twice"):
        SettlementTree([(one, 1), (one.lower(), 2)])
    with pytest.raises(ValueError, match="without accounts"):
        SettlementTree([])
    for total in (-1, MAX_TOTAL + 1):
        with pytest.raises(ValueError, match="uint256"):
            SettlementTree([(one, total)])
    with pytest.raises(KeyError):
        SettlementTree([(one, 1)]).proof(address_of(b"\1" * 20))


# https://eips.ethereum.org/EIPS/eip-55
@pytest.mark.parametrize(
    "address",
    [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
    ],
)
def test_addresses_have_the_capitals_of_eip_55(address: str) -> None:
    assert checked_address(address.lower()) == address
    swapped = address[:2] + address[2:].swapcase()
    if swapped[2:] not in (swapped[2:].lower(), swapped[2:].upper()):
        with pytest.raises(ValueError, match="mistyped"):
            account_bytes(swapped)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "0x12",
        "7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
        "0x" + "g" * 40,
        "0x" + "１" * 40,
    ],
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        account_bytes(text)


def test_keccak_is_ethereums_and_not_sha3() -> None:
    assert (
        keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
