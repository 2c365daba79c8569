# pragma version 0.4.3
"""
@title Merkle proofs
@license Apache-2.0
@notice Computes the root that a proof leads to, for trees as OpenZeppelin's merkle-tree builds
        them: a parent is the keccak256 of its two children, the smaller one first.
@dev The caller must hash leaves twice. Otherwise 64 bytes of inner nodes could pass for a leaf.
"""

MAX_PROOF: constant(uint256) = 64


@internal
@pure
def _root_of(leaf: bytes32, proof: DynArray[bytes32, MAX_PROOF]) -> bytes32:
    """
    @notice Computes the root above `leaf`.
    @param leaf The hash of the leaf.
    @param proof The sibling on each level, from the leaf upwards.
    @return bytes32 The root.
    """
    node: bytes32 = leaf
    for sibling: bytes32 in proof:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    return node
