# pragma version 0.4.3
"""
@title Raw words of claimReward, at 0x23
@custom:contract-name claim_words
@license MIT
@notice Takes what Plumise's precompile 0x23 takes: nothing, or one left-padded address when sponsored, and pays what was proved before.
        Behind the address may follow the total ever earned and the Merkle proof; that pays at once. A zero address there is the sender.
"""


interface Pool:
    def claimRewardFor(account: address) -> uint256: nonpayable
    def claim(account: address, total: uint256, proof: DynArray[bytes32, 64]) -> uint256: nonpayable


POOL: constant(address) = 0x0000000000000000000000000000000000001000
MOST: constant(uint256) = 64  # proof words: 2**64 accounts


@external
def __default__():
    """
    @notice Pays the sender's rewards, or another's, to the payout account of whoever earned them.
    """
    size: uint256 = len(msg.data)
    assert size % 32 == 0, "claim: not whole words"
    assert size <= 32 * (MOST + 2), "claim: too long"
    account: address = msg.sender
    if size >= 32:
        word: uint256 = convert(slice(msg.data, 0, 32), uint256)
        assert word >> 160 == 0, "claim: not an address"
        if word != 0:
            account = convert(word, address)
    if size <= 32:
        extcall Pool(POOL).claimRewardFor(account)
        return
    proof: DynArray[bytes32, MOST] = []
    for i: uint256 in range(size // 32 - 2, bound=MOST):
        proof.append(convert(slice(msg.data, 64 + 32 * i, 32), bytes32))
    extcall Pool(POOL).claim(account, convert(slice(msg.data, 32, 32), uint256), proof)
