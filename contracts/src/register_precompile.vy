# pragma version 0.4.3
"""
@title Precompile 0x21: agentRegister
@custom:contract-name register_precompile
@license Apache-2.0
@notice Registers an agent from the calldata of Plumise's precompile 0x21: 32-byte words without a
        selector. They are the name, the model's hash, the number of capabilities, the
        capabilities, and, where a sponsor sends them, the agent.
"""


interface Registry:
    def register(
        agent: address,
        sender: address,
        name: bytes32,
        model: bytes32,
        capabilities: DynArray[bytes32, 16],
    ): nonpayable


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
MAX_CAPABILITIES: constant(uint256) = 16


@external
def __default__():
    """
    @notice Registers the sender, or the agent that the sender sponsors.
    """
    assert len(msg.data) >= 96, "register: too short"
    count: uint256 = convert(slice(msg.data, 64, 32), uint256)
    assert count <= MAX_CAPABILITIES, "register: too many capabilities"
    own: uint256 = 96 + 32 * count
    assert len(msg.data) == own or len(msg.data) == own + 32, "register: length does not fit the capabilities"
    capabilities: DynArray[bytes32, MAX_CAPABILITIES] = []
    for i: uint256 in range(count, bound=MAX_CAPABILITIES):
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
