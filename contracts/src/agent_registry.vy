# pragma version 0.4.3
"""
@title Agent registry
@custom:contract-name agent_registry
@license Apache-2.0
@notice Records which agents take part and which are alive. The contracts at the precompile
        addresses 0x21 (register) and 0x22 (heartbeat) decode raw calldata and call this contract,
        which keeps the state. Liveness is a condition of settlement and earns nothing by itself.
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

# Seconds, as on Plumise.
HEARTBEAT_TIMEOUT: public(constant(uint256)) = 300
# The largest integer that every JSON parser keeps exact.
MAX_SAMPLES: public(constant(uint256)) = 2 ** 53 - 1

agents: public(HashMap[address, Agent])
agent_count: public(uint256)
# The account that may register, send heartbeats and claim for an agent, at its own expense.
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
    @dev Only the contract at 0x21 may call this.
    @param agent The account to register.
    @param sender The account that called 0x21: the agent, or a sponsor that the agent approved.
    @param name UTF-8, padded with zeros.
    @param model The digest of what the agent works on.
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
def heartbeat(
    agent: address, sender: address, carries: bool, samples: uint256, certificate: bytes32
):
    """
    @notice Records that `agent` is alive.
    @dev Only the contract at 0x22 may call this.
    @param agent The account that is alive.
    @param sender The account that called 0x22.
    @param carries Whether the heartbeat carries figures; if not, the previous ones stay.
    @param samples All certified samples. Fewer than before are refused, so that a counter that
           was reset cannot count the same samples again.
    @param certificate The hash of the last certificate.
    """
    assert msg.sender == HEARTBEAT, "registry: only 0x22 sends heartbeats"
    self._check_sender(agent, sender)
    assert self.agents[agent].registered_at != 0, "registry: not registered"
    if carries:
        assert samples >= self.agents[agent].samples, "registry: samples went back"
        assert samples <= MAX_SAMPLES, "registry: too many samples"
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
    @notice Lets `sponsor` register, send heartbeats and claim for the caller. The zero address
            withdraws the approval.
    @param sponsor The account that pays the gas.
    """
    self.sponsor_of[msg.sender] = sponsor
    log SponsorApproved(agent=msg.sender, sponsor=sponsor)


@external
def set_payout(payout: address):
    """
    @notice Sets where the caller's rewards are paid. The default is the caller's own account.
    @param payout The payout account. Its key may be kept anywhere.
    """
    assert payout != empty(address), "registry: no payout"
    self.payouts[msg.sender] = payout
    log PayoutSet(agent=msg.sender, payout=payout)


@external
@view
def payout_of(agent: address) -> address:
    """
    @notice Returns where the rewards of `agent` are paid.
    @param agent The account that earned them.
    @return address The payout account; the agent itself if it named none.
    """
    return self._payout_of(agent)


@external
@view
def is_registered(agent: address) -> bool:
    """
    @notice Returns whether `agent` is registered.
    @param agent The account.
    @return bool True if it is registered.
    """
    return self.agents[agent].registered_at != 0


@external
@view
def is_active(agent: address) -> bool:
    """
    @notice Returns whether `agent` is registered and sent a heartbeat within the timeout.
    @param agent The account.
    @return bool True if it is active.
    """
    return self._is_active(agent)


@external
@view
def status(agent: address) -> (Agent, bool, address):
    """
    @notice Returns everything this contract knows about `agent`.
    @param agent The account.
    @return Agent Its record; zeros if it is not registered.
    @return bool True if it is active.
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
