# pragma version 0.4.3
"""
@title Agent registry
@custom:contract-name agent_registry
@license MIT
@notice Who takes part and who is alive. The precompile addresses 0x21 (register) and 0x22 (heartbeat) take raw words and call this contract, which
        holds what they share. Liveness is a gate for settlement; it earns nothing by itself.
"""


struct Agent:
    name: bytes32
    model: bytes32
    registered_at: uint256
    last_heartbeat: uint256
    samples: uint256
    certificate: bytes32


event Registered:
    agent: indexed(address)
    sponsor: indexed(address)
    name: bytes32
    model: bytes32
    capabilities: DynArray[bytes32, 16]


event Heartbeat:
    agent: indexed(address)
    sponsor: indexed(address)
    samples: uint256
    certificate: bytes32


event SponsorApproved:
    agent: indexed(address)
    sponsor: indexed(address)


event PayoutSet:
    agent: indexed(address)
    payout: indexed(address)


REGISTER: constant(address) = 0x0000000000000000000000000000000000000021
HEARTBEAT: constant(address) = 0x0000000000000000000000000000000000000022

HEARTBEAT_TIMEOUT: public(constant(uint256)) = 300  # seconds, as on Plumise
MOST_SAMPLES: public(constant(uint256)) = 2 ** 53 - 1  # what every reader of JSON keeps exact

agents: public(HashMap[address, Agent])
agent_count: public(uint256)
# @dev Who may register, beat and claim for an agent, and pay for that.
sponsor_of: public(HashMap[address, address])
payouts: HashMap[address, address]


@external
def register(
    agent: address,
    sender: address,
    name: bytes32,
    model: bytes32,
    capabilities: DynArray[bytes32, 16],
):
    """
    @notice Registers `agent`. An empty name is accepted.
    @dev Only for the contract at 0x21.
    @param agent Who is registered.
    @param sender Who sent the words to 0x21: the agent, or a sponsor that it approved.
    @param name UTF-8, padded with zeros.
    @param model Digest of what the agent works on.
    @param capabilities Digests of what the agent can do.
    """
    assert msg.sender == REGISTER, "registry: only 0x21 registers"
    self._check_sender(agent, sender)
    assert self.agents[agent].registered_at == 0, "registry: already registered"
    self.agents[agent] = Agent(
        name=name,
        model=model,
        registered_at=block.timestamp,
        last_heartbeat=block.timestamp,
        samples=0,
        certificate=empty(bytes32),
    )
    self.agent_count += 1
    log Registered(agent=agent, sponsor=sender, name=name, model=model, capabilities=capabilities)


@external
def heartbeat(agent: address, sender: address, carries: bool, samples: uint256, certificate: bytes32):
    """
    @notice `agent` is alive.
    @dev Only for the contract at 0x22.
    @param agent Who is alive.
    @param sender Who sent the words to 0x22.
    @param carries Whether there are figures; without, the last ones stay.
    @param samples Certified samples in all. Fewer than before are refused: a counter that was reset must not count again.
    @param certificate Hash of the last certificate.
    """
    assert msg.sender == HEARTBEAT, "registry: only 0x22 beats"
    self._check_sender(agent, sender)
    assert self.agents[agent].registered_at != 0, "registry: not registered"
    if carries:
        assert samples >= self.agents[agent].samples, "registry: samples went back"
        assert samples <= MOST_SAMPLES, "registry: too many samples"
        self.agents[agent].samples = samples
        self.agents[agent].certificate = certificate
    self.agents[agent].last_heartbeat = block.timestamp
    log Heartbeat(
        agent=agent,
        sponsor=sender,
        samples=self.agents[agent].samples,
        certificate=self.agents[agent].certificate,
    )


@external
def approve_sponsor(sponsor: address):
    """
    @notice Lets `sponsor` register, beat and claim for the caller. The zero address takes it back.
    @param sponsor Who pays the gas.
    """
    self.sponsor_of[msg.sender] = sponsor
    log SponsorApproved(agent=msg.sender, sponsor=sponsor)


@external
def set_payout(payout: address):
    """
    @notice Says where the caller's rewards are paid: its own account until it says otherwise.
    @param payout The account, which may be one that is only watched.
    """
    assert payout != empty(address), "registry: no payout"
    self.payouts[msg.sender] = payout
    log PayoutSet(agent=msg.sender, payout=payout)


@external
@view
def payout_of(agent: address) -> address:
    """
    @notice Where the rewards of `agent` are paid.
    @param agent Who earned them.
    @return address The payout account; the agent itself when it named none.
    """
    return self._payout_of(agent)


@external
@view
def is_registered(agent: address) -> bool:
    """
    @notice Whether `agent` is registered.
    @param agent Who is asked about.
    @return bool Whether it is.
    """
    return self.agents[agent].registered_at != 0


@external
@view
def is_active(agent: address) -> bool:
    """
    @notice Whether `agent` is registered and was heard of within the timeout.
    @param agent Who is asked about.
    @return bool Whether it is.
    """
    return self._is_active(agent)


@external
@view
def status(agent: address) -> (Agent, bool, address):
    """
    @notice All there is to know of `agent`.
    @param agent Who is asked about.
    @return Agent What it said, zeros when it is not registered.
    @return bool Whether it is active.
    @return address Where its rewards are paid.
    """
    return self.agents[agent], self._is_active(agent), self._payout_of(agent)


@internal
@view
def _is_active(agent: address) -> bool:
    if self.agents[agent].registered_at == 0:
        return False
    return block.timestamp <= self.agents[agent].last_heartbeat + HEARTBEAT_TIMEOUT


@internal
@view
def _payout_of(agent: address) -> address:
    payout: address = self.payouts[agent]
    if payout == empty(address):
        return agent
    return payout


@internal
@view
def _check_sender(agent: address, sender: address):
    assert agent != empty(address), "registry: no agent"
    if agent != sender:
        assert self.sponsor_of[agent] == sender, "registry: not a sponsor"
