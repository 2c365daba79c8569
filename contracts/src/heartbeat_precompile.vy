# pragma version 0.4.3
"""
@title Precompile 0x22: agentHeartbeat
@custom:contract-name heartbeat_precompile
@license Apache-2.0
@notice Records a heartbeat from the calldata of Plumise's precompile 0x22: nothing, or, where a
        sponsor sends it, the agent's left-padded address. This contract also accepts two more
        words behind the address: all certified samples, and the hash of the last certificate.
        With these words, the zero address stands for the sender.
"""


interface Registry:
    def heartbeat(
        agent: address, sender: address, carries: bool, samples: uint256, certificate: bytes32
    ): nonpayable


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001


@external
def __default__():
    """
    @notice Records that the sender, or the agent that the sender sponsors, is alive.
    """
    size: uint256 = len(msg.data)
    assert size == 0 or size == 32 or size == 96, "heartbeat: 0, 1 or 3 words"
    agent: address = msg.sender
    if size >= 32:
        word: uint256 = convert(slice(msg.data, 0, 32), uint256)
        assert word >> 160 == 0, "heartbeat: not an address"
        if word != 0:
            agent = convert(word, address)
    samples: uint256 = 0
    certificate: bytes32 = empty(bytes32)
    if size == 96:
        samples = convert(slice(msg.data, 32, 32), uint256)
        certificate = convert(slice(msg.data, 64, 32), bytes32)
    extcall Registry(REGISTRY).heartbeat(agent, msg.sender, size == 96, samples, certificate)
