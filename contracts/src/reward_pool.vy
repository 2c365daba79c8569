# pragma version 0.4.3
"""
@title Reward pool
@custom:contract-name reward_pool
@license Apache-2.0
@notice Pays what was certified. For each epoch enough of the settlers propose one Merkle root over
        (account, total ever earned). The root can be disputed during a delay; after that, anyone
        activates it. A claim pays the account's total minus what it was paid before. Totals are
        cumulative, so missed epochs do no harm, and a higher total corrects an earlier one. A
        dispute drops the pending root, and the last active root stays. The account itself claims,
        or its sponsor, or anyone with the account's signature. Nobody else may choose the moment,
        since the account may be about to change its payout.
@dev Everything that is paid out was covered by the total of an active root, and that total was
     covered by the balance. Nobody, the owner included, can take money out in another way. A
     settler can hold up payment by one delay only: it has one dispute until the next root is
     active. The owner's disputes are not counted, since the owner can pause for ever anyway. If
     several settlers hold a root to be wrong, it waits for one delay per settler, and the owner
     may side with them meanwhile. The delay stands still while the pool is paused.
"""

from library import merkle
from library import ownable
from library import pausable
from library import signatures

initializes: ownable
initializes: pausable
exports: (ownable.owner, ownable.transfer_ownership, pausable.paused)


interface Registry:
    def payout_of(agent: address) -> address: view
    def sponsor_of(agent: address) -> address: view


struct Proposal:
    epoch: uint256
    root: bytes32
    total: uint256
    data: bytes32


event Funded:
    sender: indexed(address)
    amount: uint256


event Voted:
    settler: indexed(address)
    epoch: indexed(uint256)
    root: bytes32
    total: uint256
    data: bytes32


event Proposed:
    epoch: indexed(uint256)
    root: bytes32
    total: uint256
    data: bytes32
    ready_at: uint256


event Disputed:
    epoch: indexed(uint256)
    disputer: indexed(address)
    root: bytes32
    reason: String[96]
    evidence: bytes32


event Activated:
    epoch: indexed(uint256)
    root: bytes32
    total: uint256


event Proved:
    account: indexed(address)
    total: uint256


event Claimed:
    account: indexed(address)
    payout: indexed(address)
    amount: uint256
    total: uint256


# The event of Plumise's own pool. Plumise's clients look for its topic.
event RewardClaimed:
    agent: indexed(address)
    amount: uint256


event SettlersSet:
    settlers: DynArray[address, 16]
    needed: uint256


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
# The contract at 0x23, which checks its own caller.
CLAIM_PRECOMPILE: constant(address) = 0x0000000000000000000000000000000000000023
# The longest epoch and the longest delay. A typing error of three digits would lock the pool for
# ever.
MAX_SECONDS: constant(uint256) = 366 * 86400
MAX_SETTLERS: constant(uint256) = 16
# A proof of 64 words is enough for 2**64 accounts.
MAX_PROOF: constant(uint256) = 64
NAME: constant(String[19]) = "HyperGPU RewardPool"
VERSION: constant(String[1]) = "1"
CLAIM_TYPE: constant(bytes32) = keccak256(
    "Claim(address account,address payout,uint256 total,uint256 deadline)"
)

# When epoch 0 began, in unix seconds.
START: public(immutable(uint256))
EPOCH_SECONDS: public(immutable(uint256))
# For how long a root can be disputed.
DELAY_SECONDS: public(immutable(uint256))

settlers: DynArray[address, MAX_SETTLERS]
needed: public(uint256)
# Votes count within one attempt at a root. The next attempt begins when a root is activated or
# disputed, or when the settlers change.
attempt: public(uint256)
votes: HashMap[uint256, HashMap[address, bytes32]]
# `settled_epochs` + 1 at the time of a settler's last dispute. The settler has no other dispute
# until `settled_epochs` grows.
disputed_at: HashMap[address, uint256]
active: public(Proposal)
pending: public(Proposal)
# When the pending root's delay ends. The delay stands still while the pool is paused.
ends_at: uint256
paused_at: uint256
# The active root covers all epochs before this one.
settled_epochs: public(uint256)
claimed: public(HashMap[address, uint256])
claimed_total: public(uint256)
proved: HashMap[address, uint256]
proved_under: HashMap[address, bytes32]


@deploy
def __init__(
    owner: address,
    settlers: DynArray[address, MAX_SETTLERS],
    needed: uint256,
    start: uint256,
    epoch_seconds: uint256,
    delay_seconds: uint256,
):
    """
    @notice Sets who may do what, and when.
    @param owner The account that may pause, dispute, and name settlers.
    @param settlers The accounts that propose roots.
    @param needed How many settlers must propose the same root.
    @param start When epoch 0 began, in unix seconds.
    @param epoch_seconds The length of an epoch.
    @param delay_seconds How long a root can be disputed before it can be activated.
    """
    ownable._set_owner(owner)
    assert epoch_seconds > 0, "pool: no epoch length"
    assert epoch_seconds <= MAX_SECONDS, "pool: epoch longer than a year"
    assert delay_seconds <= MAX_SECONDS, "pool: delay longer than a year"
    START = start
    EPOCH_SECONDS = epoch_seconds
    DELAY_SECONDS = delay_seconds
    self._set_settlers(settlers, needed)


@external
@payable
def fund():
    """
    @notice Adds money to the pool. It leaves the pool only as rewards.
    """
    assert msg.value > 0, "pool: nothing sent"
    log Funded(sender=msg.sender, amount=msg.value)


@external
def propose(epoch: uint256, root: bytes32, total: uint256, data: bytes32):
    """
    @notice Records a settler's vote for the root of everything earned up to the end of `epoch`.
            A later vote replaces it. Once enough settlers voted for the same root, that root is
            pending.
    @param epoch The last epoch that the root covers. It must be over.
    @param root The root of the tree of (account, total ever earned).
    @param total The sum of all leaves.
    @param data The digest of the published data set.
    """
    pausable._check_running()
    assert msg.sender in self.settlers, "pool: not a settler"
    assert self.pending.root == empty(bytes32), "pool: another root is pending"
    assert root != empty(bytes32), "pool: no root"
    assert epoch >= self.settled_epochs, "pool: epoch already settled"
    assert epoch < self._epoch(), "pool: epoch is not over"
    assert total >= self.active.total, "pool: total went back"
    self._check_covered(total)
    proposal: Proposal = Proposal(epoch=epoch, root=root, total=total, data=data)
    vote: bytes32 = self._name_of(proposal)
    self.votes[self.attempt][msg.sender] = vote
    log Voted(settler=msg.sender, epoch=epoch, root=root, total=total, data=data)
    count: uint256 = 0
    for settler: address in self.settlers:
        if self.votes[self.attempt][settler] == vote:
            count += 1
    if count >= self.needed:
        self.pending = proposal
        self.ends_at = block.timestamp + DELAY_SECONDS
        log Proposed(epoch=epoch, root=root, total=total, data=data, ready_at=self.ends_at)


@external
def dispute(
    epoch: uint256,
    root: bytes32,
    total: uint256,
    data: bytes32,
    reason: String[96],
    evidence: bytes32,
):
    """
    @notice Drops the pending root; the last active root stays. A dispute is possible during a
            pause, too. A settler has one dispute until the next root is active, so a settler that
            disputes everything holds up payment by one delay. The owner may dispute any number of
            times. The caller names the whole proposal, so that a late dispute cannot drop the
            corrected root of the same epoch.
    @param epoch The pending root's epoch.
    @param root The pending root.
    @param total The pending root's total.
    @param data The digest of the pending root's data set.
    @param reason One sentence that says why.
    @param evidence The hash of the evidence.
    """
    assert msg.sender in self.settlers or msg.sender == ownable.owner, "pool: may not dispute"
    assert self.pending.root != empty(bytes32), "pool: no root is pending"
    named: Proposal = Proposal(epoch=epoch, root=root, total=total, data=data)
    assert self._name_of(named) == self._name_of(self.pending), "pool: not the pending root"
    assert block.timestamp < self._ready_at(), "pool: dispute is over"
    if msg.sender != ownable.owner:
        assert self.disputed_at[msg.sender] != self.settled_epochs + 1, "pool: dispute is used up"
        self.disputed_at[msg.sender] = self.settled_epochs + 1
    log Disputed(epoch=epoch, disputer=msg.sender, root=root, reason=reason, evidence=evidence)
    self._next_attempt()


@external
def activate():
    """
    @notice Makes the pending root the active one, which claims are checked against. Anyone may
            call this once the delay is over.
    """
    pausable._check_running()
    assert self.pending.root != empty(bytes32), "pool: no root is pending"
    assert block.timestamp >= self.ends_at, "pool: delay is not over"
    self._check_covered(self.pending.total)
    self.active = self.pending
    self.settled_epochs = self.active.epoch + 1
    log Activated(epoch=self.active.epoch, root=self.active.root, total=self.active.total)
    self._next_attempt()


@external
@nonreentrant
def claim(account: address, total: uint256, proof: DynArray[bytes32, MAX_PROOF]) -> uint256:
    """
    @notice Pays what `account` earned and was not paid yet, to the payout account that it named
            in the registry. Only the account and its sponsor may call this.
    @param account The account that earned the rewards.
    @param total Everything that the account ever earned.
    @param proof The siblings from the account's leaf to the active root.
    @return uint256 The amount that was paid.
    """
    self._check_claimer(account)
    self._check_proof(account, total, proof)
    return self._pay(account, staticcall Registry(REGISTRY).payout_of(account), total)


@external
@nonreentrant
def claim_to(
    account: address,
    payout: address,
    total: uint256,
    deadline: uint256,
    proof: DynArray[bytes32, MAX_PROOF],
    signature: Bytes[65],
) -> uint256:
    """
    @notice Does what `claim` does, and pays to the account that `account` signed for (EIP-712,
            for this contract on this chain). Anyone may call this.
    @param account The account that earned the rewards and signed.
    @param payout Where the rewards are paid.
    @param total Everything that the account ever earned.
    @param deadline Until when the signature is valid, in unix seconds.
    @param proof The siblings from the account's leaf to the active root.
    @param signature The account's signature over Claim(account, payout, total, deadline).
    @return uint256 The amount that was paid.
    """
    assert block.timestamp <= deadline, "pool: signature expired"
    # A signature of a wrong length recovers to the zero address.
    assert account != empty(address), "pool: no account"
    message: bytes32 = keccak256(abi_encode(CLAIM_TYPE, account, payout, total, deadline))
    hash: bytes32 = signatures._typed_data_hash(keccak256(NAME), keccak256(VERSION), message)
    assert signatures._signer_of(hash, signature) == account, "pool: wrong signer"
    assert payout != empty(address), "pool: no payout"
    self._check_proof(account, total, proof)
    return self._pay(account, payout, total)


@external
def prove(account: address, total: uint256, proof: DynArray[bytes32, MAX_PROOF]):
    """
    @notice Keeps a proved total for a claim that cannot carry a proof (Plumise's calldata). The
            total is valid as long as the root under which it was proved is active.
    @param account The account that earned the rewards.
    @param total Everything that the account ever earned.
    @param proof The siblings from the account's leaf to the active root.
    """
    self._check_proof(account, total, proof)
    self.proved[account] = total
    self.proved_under[account] = self.active.root
    log Proved(account=account, total=total)


@external
@nonreentrant
def claimRewardFor(account: address) -> uint256:
    """
    @notice Pays what `prove` kept for `account`, to its payout account. Only the account and its
            sponsor may call this.
    @param account The account that earned the rewards.
    @return uint256 The amount that was paid.
    """
    self._check_claimer(account)
    return self._pay_proved(account)


@external
@nonreentrant
def claimReward() -> uint256:
    """
    @notice Pays what `prove` kept for the caller.
    @return uint256 The amount that was paid.
    """
    return self._pay_proved(msg.sender)


@external
@view
def getPendingReward(account: address) -> uint256:
    """
    @notice Returns what `claimRewardFor` would pay.
    @param account The account.
    @return uint256 Base units.
    """
    total: uint256 = self._proved(account)
    if total <= self.claimed[account]:
        return 0
    return total - self.claimed[account]


@external
@view
def getCurrentEpoch() -> uint256:
    """
    @notice Returns the current epoch.
    @return uint256 Its number, counted from 0.
    """
    return self._epoch()


@external
@view
def eip712Domain() -> (
    bytes1, String[19], String[1], uint256, address, bytes32, DynArray[uint256, 1]
):
    """
    @notice Describes the domain of this contract's signatures (EIP-5267).
    @return bytes1 Which of the next fields are used, one bit each: the first four.
    @return String The domain's name.
    @return String The domain's version.
    @return uint256 The chain's id.
    @return address The verifying contract: this one.
    @return bytes32 The salt, which is not used.
    @return DynArray The extensions: none.
    """
    return (0x0f, NAME, VERSION, chain.id, self, empty(bytes32), empty(DynArray[uint256, 1]))


@external
@view
def get_settlers() -> DynArray[address, MAX_SETTLERS]:
    """
    @notice Returns the settlers, who propose roots.
    @return DynArray Their accounts.
    """
    return self.settlers


@external
@view
def ready_at() -> uint256:
    """
    @notice Returns when the pending root can be activated. During a pause, this is computed as if
            the pause ended now.
    @return uint256 Unix seconds; 0 if no root is pending.
    """
    return self._ready_at()


@external
@view
def is_claimable(account: address, total: uint256, proof: DynArray[bytes32, MAX_PROOF]) -> uint256:
    """
    @notice Returns what `claim` would pay.
    @param account The account that earned the rewards.
    @param total Everything that the account ever earned.
    @param proof The siblings from the account's leaf to the root.
    @return uint256 Base units; 0 if the proof does not lead to the active root, or during a pause.
    """
    if pausable.paused or total <= self.claimed[account]:
        return 0
    if not self._is_proof(account, total, proof):
        return 0
    return total - self.claimed[account]


@external
def set_settlers(settlers: DynArray[address, MAX_SETTLERS], needed: uint256):
    """
    @notice Names the settlers. Votes so far become void; a pending root stays.
    @param settlers Their accounts, each of them once.
    @param needed How many settlers must propose the same root.
    """
    ownable._check_owner()
    self._set_settlers(settlers, needed)


@external
def pause():
    """
    @notice Stops proposals, activations, claims, and the delay of a pending root.
    """
    ownable._check_owner()
    pausable._pause()
    self.paused_at = block.timestamp


@external
def unpause():
    """
    @notice Ends the pause. A pending root can then be disputed for as long as when it began.
    """
    ownable._check_owner()
    self.ends_at = self._ready_at()
    pausable._unpause()


@internal
def _set_settlers(settlers: DynArray[address, MAX_SETTLERS], needed: uint256):
    assert needed > 0 and needed <= len(settlers), "pool: cannot be reached"
    seen: DynArray[address, MAX_SETTLERS] = []
    for settler: address in settlers:
        assert settler != empty(address) and settler not in seen, "pool: settler twice or none"
        seen.append(settler)
    self.settlers = settlers
    self.needed = needed
    self.attempt += 1
    log SettlersSet(settlers=settlers, needed=needed)


@internal
def _next_attempt():
    self.pending = empty(Proposal)
    self.ends_at = 0
    self.attempt += 1


@internal
@pure
def _name_of(proposal: Proposal) -> bytes32:
    return keccak256(abi_encode(proposal))


@internal
@view
def _ready_at() -> uint256:
    if pausable.paused and self.ends_at > self.paused_at:
        return self.ends_at + block.timestamp - self.paused_at
    return self.ends_at


@internal
@view
def _epoch() -> uint256:
    if block.timestamp < START:
        return 0
    return (block.timestamp - START) // EPOCH_SECONDS


@internal
@view
def _check_covered(total: uint256):
    assert total <= self.balance + self.claimed_total, "pool: not covered"


@internal
@view
def _check_claimer(account: address):
    if msg.sender != account and msg.sender != CLAIM_PRECOMPILE:
        assert staticcall Registry(REGISTRY).sponsor_of(account) == msg.sender, "pool: not the account or its sponsor"


@internal
@view
def _is_proof(account: address, total: uint256, proof: DynArray[bytes32, MAX_PROOF]) -> bool:
    if self.active.root == empty(bytes32):
        return False
    # Leaves are hashed twice, so that no inner node of the tree can pass for a leaf.
    leaf: bytes32 = keccak256(abi_encode(keccak256(abi_encode(account, total))))
    return merkle._root_of(leaf, proof) == self.active.root


@internal
@view
def _check_proof(account: address, total: uint256, proof: DynArray[bytes32, MAX_PROOF]):
    assert self._is_proof(account, total, proof), "pool: wrong proof"


@internal
@view
def _proved(account: address) -> uint256:
    if self.active.root == empty(bytes32) or self.proved_under[account] != self.active.root:
        return 0
    return self.proved[account]


@internal
def _pay_proved(account: address) -> uint256:
    total: uint256 = self._proved(account)
    assert total > 0, "pool: nothing was proved"
    return self._pay(account, staticcall Registry(REGISTRY).payout_of(account), total)


@internal
def _pay(account: address, payout: address, total: uint256) -> uint256:
    pausable._check_running()
    assert total > self.claimed[account], "pool: nothing to claim"
    amount: uint256 = total - self.claimed[account]
    # The leaves of a root may add up to more than its total. What later roots will owe to others
    # must not be paid for them.
    assert self.claimed_total + amount <= self.active.total, "pool: beyond the root's total"
    self.claimed[account] = total
    self.claimed_total += amount
    log Claimed(account=account, payout=payout, amount=amount, total=total)
    log RewardClaimed(agent=account, amount=amount)
    paid: bool = raw_call(payout, b"", value=amount, revert_on_failure=False)
    assert paid, "pool: payout refuses money"
    return amount
