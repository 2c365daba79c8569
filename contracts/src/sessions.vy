# pragma version 0.4.3
"""
@title Sessions
@custom:contract-name sessions
@license MIT
@notice A run on the chain: created with its manifest's hash, active, then completed with its final certificate or cancelled. Only its owner
        moves it. It moves no money.
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


event Completed:
    run: indexed(bytes32)
    certificate: bytes32


event Cancelled:
    run: indexed(bytes32)
    reason: String[96]


sessions: public(HashMap[bytes32, Session])


@external
def create(run: bytes32, manifest: bytes32):
    """
    @notice Makes the caller the owner of `run`.
    @param run The run's id, the digest of its manifest.
    @param manifest Hash of the signed manifest as it was published.
    """
    assert run != empty(bytes32), "sessions: no run"
    assert self.sessions[run].owner == empty(address), "sessions: already created"
    self.sessions[run] = Session(owner=msg.sender, manifest=manifest, certificate=empty(bytes32), state=State.CREATED)
    log Created(run=run, owner=msg.sender, manifest=manifest)


@external
def activate(run: bytes32):
    """
    @notice The run trains.
    @param run The run's id.
    """
    self._check_owner(run)
    assert self.sessions[run].state == State.CREATED, "sessions: not created"
    self.sessions[run].state = State.ACTIVE
    log Activated(run=run)


@external
def complete(run: bytes32, certificate: bytes32):
    """
    @notice The run is done.
    @param run The run's id.
    @param certificate Hash of its final certificate.
    """
    self._check_owner(run)
    assert self.sessions[run].state == State.ACTIVE, "sessions: not active"
    assert certificate != empty(bytes32), "sessions: no certificate"
    self.sessions[run].state = State.COMPLETED
    self.sessions[run].certificate = certificate
    log Completed(run=run, certificate=certificate)


@external
def cancel(run: bytes32, reason: String[96]):
    """
    @notice The run ends without a final certificate.
    @param run The run's id.
    @param reason One sentence.
    """
    self._check_owner(run)
    assert self.sessions[run].state in (State.CREATED | State.ACTIVE), "sessions: already ended"
    self.sessions[run].state = State.CANCELLED
    log Cancelled(run=run, reason=reason)


@internal
@view
def _check_owner(run: bytes32):
    assert self.sessions[run].owner != empty(address), "sessions: no such run"
    assert self.sessions[run].owner == msg.sender, "sessions: not the owner"
