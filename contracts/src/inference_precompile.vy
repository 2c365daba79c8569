# pragma version 0.4.3
"""
@title Precompile 0x20: verifyInference
@custom:contract-name inference_precompile
@license Apache-2.0
@notice Records what an agent served, from the calldata of Plumise's precompile 0x20: five 32-byte
        words without a selector. They are the model's hash, the digests of the token ids in and
        out, the left-padded agent, and the number of tokens. The record is the agent's own word,
        or its sponsor's: it earns nothing by itself, and settlement pays receipts with two
        signatures.
"""


interface Registry:
    def is_registered(agent: address) -> bool: view
    def sponsor_of(agent: address) -> address: view


event InferenceVerified:
    agent: indexed(address)
    model: indexed(bytes32)
    input_hash: bytes32
    output_hash: bytes32
    tokens: uint256


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
# The largest integer that every JSON parser keeps exact.
MAX_TOKENS: constant(uint256) = 2 ** 53 - 1

# By the digest of the calldata. One record is counted once.
recorded: HashMap[bytes32, bool]


@external
def __default__():
    """
    @notice Records one piece of service of the sender, or of the agent that the sender sponsors.
    """
    assert len(msg.data) == 160, "inference: 5 words"
    word: uint256 = convert(slice(msg.data, 96, 32), uint256)
    assert word >> 160 == 0, "inference: not an address"
    agent: address = convert(word, address)
    tokens: uint256 = convert(slice(msg.data, 128, 32), uint256)
    assert tokens != 0, "inference: no tokens"
    assert tokens <= MAX_TOKENS, "inference: too many tokens"
    assert staticcall Registry(REGISTRY).is_registered(agent), "inference: not registered"
    if agent != msg.sender:
        assert staticcall Registry(REGISTRY).sponsor_of(agent) == msg.sender, "inference: not a sponsor"
    name: bytes32 = keccak256(slice(msg.data, 0, 160))
    assert not self.recorded[name], "inference: recorded already"
    self.recorded[name] = True
    log InferenceVerified(
        agent=agent,
        model=convert(slice(msg.data, 0, 32), bytes32),
        input_hash=convert(slice(msg.data, 32, 32), bytes32),
        output_hash=convert(slice(msg.data, 64, 32), bytes32),
        tokens=tokens,
    )
