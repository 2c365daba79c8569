# pragma version 0.4.3
"""
@title Raw words of agentRegister, at 0x21
@custom:contract-name register_words
@license MIT
@notice Takes what Plumise's precompile 0x21 takes: 32-byte words without a selector:
        name, model hash, number of capabilities, the capabilities[, the agent that the sender registers as its sponsor].
"""


interface Registry:
    def register(agent: address, sender: address, name: bytes32, model: bytes32, capabilities: DynArray[bytes32, 16]): nonpayable


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
MOST: constant(uint256) = 16  # capabilities


@external
def __default__():
    """
    @notice Registers the sender, or the agent it sponsors.
    """
    assert len(msg.data) >= 96, "register: too short"
    count: uint256 = convert(slice(msg.data, 64, 32), uint256)
    assert count <= MOST, "register: too many capabilities"
    own: uint256 = 96 + 32 * count
    assert len(msg.data) == own or len(msg.data) == own + 32, "register: length does not fit the capabilities"
    capabilities: DynArray[bytes32, MOST] = []
    for i: uint256 in range(count, bound=MOST):
        capabilities.append(convert(slice(msg.data, 96 + 32 * i, 32), bytes32))
    agent: address = msg.sender
    if len(msg.data) == own + 32:
        word: uint256 = convert(slice(msg.data, own, 32), uint256)
        assert word >> 160 == 0, "register: not an address"
        agent = convert(word, address)
    extcall Registry(REGISTRY).register(
        agent,
        msg.sender,
        convert(slice(msg.data, 0, 32), bytes32),
        convert(slice(msg.data, 32, 32), bytes32),
        capabilities,
    )
