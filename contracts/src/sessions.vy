# pragma version 0.4.3
"""
@title Sessions
@custom:contract-name sessions
@license Apache-2.0
@notice Records training runs. A session is created with the hash of its run's manifest, becomes
        active, and is then completed with its final certificate or cancelled. Only its owner
        changes it. No money moves.
@dev A run's id is public before its session exists. So a session is named by its owner and its
     run: anyone can create a session of their own for a run, and nobody can occupy another's.
     A reader must name the owner.
"""


flag State:
    CREATED
    ACTIVE
    COMPLETED
    CANCELLED


struct Session:
    owner: address
    manifest: bytes32
    certificate: bytes32
    state: State


event Created:
    run: indexed(bytes32)
    owner: indexed(address)
    manifest: bytes32


event Activated:
    run: indexed(bytes32)
    owner: indexed(address)


event Completed:
    run: indexed(bytes32)
    owner: indexed(address)
    certificate: bytes32


event Cancelled:
    run: indexed(bytes32)
    owner: indexed(address)
    reason: String[96]


sessions: public(HashMap[address, HashMap[bytes32, Session]])


@external
def create(run: bytes32, manifest: bytes32):
    """
    @notice Creates the caller's session for `run`.
    @param run The run's id: the digest of its manifest.
    @param manifest The hash of the signed manifest as published.
    """
    assert run != empty(bytes32), "sessions: no run"
    assert self.sessions[msg.sender][run].owner == empty(address), "sessions: already created"
    self.sessions[msg.sender][run] = Session(
        owner=msg.sender, manifest=manifest, certificate=empty(bytes32), state=State.CREATED
    )
    log Created(run=run, owner=msg.sender, manifest=manifest)


@external
def activate(run: bytes32):
    """
    @notice Marks the run as active: it trains now.
    @param run The run's id.
    """
    self._check_created(run)
    assert self.sessions[msg.sender][run].state == State.CREATED, "sessions: not created"
    self.sessions[msg.sender][run].state = State.ACTIVE
    log Activated(run=run, owner=msg.sender)


@external
def complete(run: bytes32, certificate: bytes32):
    """
    @notice Completes the run.
    @param run The run's id.
    @param certificate The hash of the run's final certificate.
    """
    self._check_created(run)
    assert self.sessions[msg.sender][run].state == State.ACTIVE, "sessions: not active"
    assert certificate != empty(bytes32), "sessions: no certificate"
    self.sessions[msg.sender][run].state = State.COMPLETED
    self.sessions[msg.sender][run].certificate = certificate
    log Completed(run=run, owner=msg.sender, certificate=certificate)


@external
def cancel(run: bytes32, reason: String[96]):
    """
    @notice Ends the run without a final certificate.
    @param run The run's id.
    @param reason One sentence that says why.
    """
    self._check_created(run)
    assert self.sessions[msg.sender][run].state in (State.CREATED | State.ACTIVE), "sessions: already ended"
    self.sessions[msg.sender][run].state = State.CANCELLED
    log Cancelled(run=run, owner=msg.sender, reason=reason)


@internal
@view
def _check_created(run: bytes32):
    assert self.sessions[msg.sender][run].owner != empty(address), "sessions: no such run"
