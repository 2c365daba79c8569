# pragma version 0.4.3
"""
@title Precompile 0x23: claimReward
@custom:contract-name claim_precompile
@license Apache-2.0
@notice Pays rewards from the calldata of Plumise's precompile 0x23: nothing, or, where a sponsor
        sends it, the account's left-padded address. That pays what was proved before. This
        contract also accepts the account's total and its Merkle proof behind the address, and
        then pays at once. With these words, the zero address stands for the sender.
@dev Rewards of another account are paid only if that account approved the sender as its sponsor.
     The pool relies on this check.
"""


interface Pool:
    def claimRewardFor(account: address) -> uint256: nonpayable
    def claim(account: address, total: uint256, proof: DynArray[bytes32, 64]) -> uint256: nonpayable


interface Registry:
    def sponsor_of(agent: address) -> address: view


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
POOL: constant(address) = 0x0000000000000000000000000000000000001000
# A proof of 64 words is enough for 2**64 accounts.
MAX_PROOF: constant(uint256) = 64


@external
def __default__():
    """
    @notice Pays the rewards of the sender, or of an agent that the sender sponsors, to that
            agent's payout account.
    """
    size: uint256 = len(msg.data)
    assert size % 32 == 0, "claim: not whole words"
    assert size <= 32 * (MAX_PROOF + 2), "claim: too long"
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
    proof: DynArray[bytes32, MAX_PROOF] = []
    for i: uint256 in range(size // 32 - 2, bound=MAX_PROOF):
        proof.append(convert(slice(msg.data, 64 + 32 * i, 32), bytes32))
    extcall Pool(POOL).claim(account, convert(slice(msg.data, 32, 32), uint256), proof)
