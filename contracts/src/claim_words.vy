# pragma version 0.4.3
"""
@title Raw words of claimReward, at 0x23
@custom:contract-name claim_words
@license MIT
@notice Takes what Plumise's precompile 0x23 takes: nothing, or one left-padded address when sponsored, and pays what was proved before.
        Behind the address may follow the total ever earned and the Merkle proof; that pays at once. A zero address there is the sender.
        Another's rewards are paid only if that account approved the sender as its sponsor. The pool relies on this check.
"""


interface Pool:
    def claimRewardFor(account: address) -> uint256: nonpayable
    def claim(account: address, total: uint256, proof: DynArray[bytes32, 64]) -> uint256: nonpayable


interface Registry:
    def sponsor_of(agent: address) -> address: view


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
POOL: constant(address) = 0x0000000000000000000000000000000000001000
MOST: constant(uint256) = 64  # proof words: 2**64 accounts


@external
def __default__():
    """
    @notice Pays the sender's rewards, or those of an agent that it sponsors, to that agent's payout account.
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
    if account != msg.sender:
        assert staticcall Registry(REGISTRY).sponsor_of(account) == msg.sender, "claim: not the account or its sponsor"
    if size <= 32:
        extcall Pool(POOL).claimRewardFor(account)
        return
    proof: DynArray[bytes32, MOST] = []
    for i: uint256 in range(size // 32 - 2, bound=MOST):
        proof.append(convert(slice(msg.data, 64 + 32 * i, 32), bytes32))
    extcall Pool(POOL).claim(account, convert(slice(msg.data, 32, 32), uint256), proof)
