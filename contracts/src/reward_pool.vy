# pragma version 0.4.3
"""
@title Reward pool
@custom:contract-name reward_pool
@license AGPL-3.0-only
@notice Pays what was certified. A cumulative Merkle root per epoch over (account, total ever earned) is proposed by enough of the settlers, can be
        disputed during a delay, is then activated by anyone, and a claim pays total minus claimed to the account's payout. Missed epochs are harmless, a
        correction is a higher total. A dispute falls back to the last active root. The account itself claims, or its sponsor, or anyone with the
        account's signature: a stranger who chose the moment could have a payout paid that the account is about to replace.
@dev What always holds: everything paid out was covered by an active root's total, which was covered by the balance; nobody, the owner included, can
     take money out in another way. A settler can hold up payment by one delay and no longer: it has one dispute until the next root is active. The
     owner's disputes are not counted, since it can pause for ever anyway; so a root that only some settlers hold to be wrong waits for as many
     delays as there are of them, in which the owner may side with them. The delay stands still while paused. Ownership, pausing, signatures and proofs are snekmate's (hence the licence).
"""

from snekmate.auth import ownable
from snekmate.utils import ecdsa
from snekmate.utils import eip712_domain_separator as eip712
from snekmate.utils import merkle_proof_verification as merkle
from snekmate.utils import pausable

initializes: ownable
initializes: pausable
initializes: eip712
exports: (ownable.owner, ownable.transfer_ownership, pausable.paused, eip712.eip712Domain)


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


# @dev What Plumise's pool says; its topic is what clients there look for.
event RewardClaimed:
    agent: indexed(address)
    amount: uint256


event SettlersSet:
    settlers: DynArray[address, 16]
    needed: uint256


REGISTRY: constant(address) = 0x0000000000000000000000000000000000001001
CLAIM_WORDS: constant(address) = 0x0000000000000000000000000000000000000023  # checks itself who sent the words
MOST_SECONDS: constant(uint256) = 366 * 86400  # of an epoch or a delay: a slip of three digits would lock the pool for ever
MOST_SETTLERS: constant(uint256) = 16
MOST_PROOF: constant(uint256) = 64  # words: 2**64 accounts
CLAIM_TYPE: constant(bytes32) = keccak256("Claim(address account,address payout,uint256 total,uint256 deadline)")

START: public(immutable(uint256))  # when epoch 0 began, unix seconds
EPOCH_SECONDS: public(immutable(uint256))
DELAY_SECONDS: public(immutable(uint256))  # during which a root can be disputed

settlers: DynArray[address, MOST_SETTLERS]
needed: public(uint256)
# @dev Votes count within one attempt at a root; a new one begins when a root is activated or disputed, or the settlers change.
attempt: public(uint256)
votes: HashMap[uint256, HashMap[address, bytes32]]
# @dev Up to which settled epoch, plus one, a settler has used its dispute: it has one until that figure moves on.
disputed_at: HashMap[address, uint256]
active: public(Proposal)
pending: public(Proposal)
# @dev When the pending root's delay ends. It stands still while paused, since `paused_at`.
ends_at: uint256
paused_at: uint256
settled_epochs: public(uint256)  # epochs before this one are covered by the active root
claimed: public(HashMap[address, uint256])
claimed_total: public(uint256)
proved: HashMap[address, uint256]
proved_under: HashMap[address, bytes32]


@deploy
def __init__(owner: address, settlers: DynArray[address, MOST_SETTLERS], needed: uint256, start: uint256, epoch_seconds: uint256, delay_seconds: uint256):
    """
    @notice Sets who may do what and when; sends nothing.
    @param owner Who may pause, dispute, and name settlers.
    @param settlers Who propose roots.
    @param needed How many of them must propose the same one.
    @param start When epoch 0 began, unix seconds.
    @param epoch_seconds Length of an epoch.
    @param delay_seconds How long a root can be disputed before it can be activated.
    """
    ownable.__init__()
    ownable._transfer_ownership(owner)
    pausable.__init__()
    eip712.__init__("HyperGPU RewardPool", "1")
    assert epoch_seconds > 0, "pool: no epoch length"
    assert epoch_seconds <= MOST_SECONDS, "pool: epoch longer than a year"
    assert delay_seconds <= MOST_SECONDS, "pool: delay longer than a year"
    START = start
    EPOCH_SECONDS = epoch_seconds
    DELAY_SECONDS = delay_seconds
    self._set_settlers(settlers, needed)


@external
@payable
def fund():
    """
    @notice Adds to what can be earned. It never comes back but as rewards.
    """
    assert msg.value > 0, "pool: nothing sent"
    log Funded(sender=msg.sender, amount=msg.value)


@external
def propose(epoch: uint256, root: bytes32, total: uint256, data: bytes32):
    """
    @notice A settler's vote for the root of everything earned up to the end of `epoch`. A later vote replaces it. When enough settlers voted
            for the same, the root is pending.
    @param epoch The last epoch that is covered; it must be over.
    @param root Root of the tree of (account, total ever earned).
    @param total Sum of all leaves.
    @param data Digest of the published data set.
    """
    pausable._require_not_paused()
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
def dispute(epoch: uint256, root: bytes32, total: uint256, data: bytes32, reason: String[96], evidence: bytes32):
    """
    @notice Drops the pending root; the last active one stays. Also while paused. A settler may do it once until the next root is active: one that
            disputes everything holds up payment by one delay. The owner may do it again. The whole proposal is named, so that a late dispute
            does not hit the corrected root of the same epoch.
    @param epoch The pending root's epoch.
    @param root The pending root.
    @param total Its total.
    @param data Digest of its data set.
    @param reason One sentence.
    @param evidence Hash of what shows it.
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
    @notice Makes the pending root the one that claims are checked against. For anyone, after the delay.
    """
    pausable._require_not_paused()
    assert self.pending.root != empty(bytes32), "pool: no root is pending"
    assert block.timestamp >= self.ends_at, "pool: delay is not over"
    self._check_covered(self.pending.total)
    self.active = self.pending
    self.settled_epochs = self.active.epoch + 1
    log Activated(epoch=self.active.epoch, root=self.active.root, total=self.active.total)
    self._next_attempt()


@external
@nonreentrant
def claim(account: address, total: uint256, proof: DynArray[bytes32, MOST_PROOF]) -> uint256:
    """
    @notice Pays what `account` earned and was not paid, to the payout it named in the registry. For the account and its sponsor.
    @param account Who earned it.
    @param total All it ever earned.
    @param proof Siblings from its leaf to the active root.
    @return uint256 What was paid.
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
    proof: DynArray[bytes32, MOST_PROOF],
    signature: Bytes[65],
) -> uint256:
    """
    @notice As `claim`, to the payout that `account` signed for (EIP-712, for this contract on this chain). For anyone.
    @param account Who earned it, and signed.
    @param payout Where it is paid.
    @param total All it ever earned.
    @param deadline Until when the signature holds, unix seconds.
    @param proof Siblings from its leaf to the active root.
    @param signature Over Claim(account, payout, total, deadline), 65 bytes.
    @return uint256 What was paid.
    """
    assert block.timestamp <= deadline, "pool: signature expired"
    assert account != empty(address), "pool: no account"  # what a broken signature recovers to
    hash: bytes32 = eip712._hash_typed_data_v4(keccak256(abi_encode(CLAIM_TYPE, account, payout, total, deadline)))
    assert ecdsa._recover_sig(hash, signature) == account, "pool: wrong signer"
    assert payout != empty(address), "pool: no payout"
    self._check_proof(account, total, proof)
    return self._pay(account, payout, total)


@external
def prove(account: address, total: uint256, proof: DynArray[bytes32, MOST_PROOF]):
    """
    @notice Keeps a total that was proved, so that a claim that can carry no proof (Plumise's raw words) pays it. It holds as long as
            the root under which it was proved is the active one.
    @param account Who earned it.
    @param total All it ever earned.
    @param proof Siblings from its leaf to the active root.
    """
    self._check_proof(account, total, proof)
    self.proved[account] = total
    self.proved_under[account] = self.active.root
    log Proved(account=account, total=total)


@external
@nonreentrant
def claimRewardFor(account: address) -> uint256:
    """
    @notice Pays what `prove` kept for `account`, to its payout. For the account and its sponsor.
    @param account Who earned it.
    @return uint256 What was paid.
    """
    self._check_claimer(account)
    return self._pay_proved(account)


@external
@nonreentrant
def claimReward() -> uint256:
    """
    @notice Pays what `prove` kept for the caller.
    @return uint256 What was paid.
    """
    return self._pay_proved(msg.sender)


@external
@view
def getPendingReward(account: address) -> uint256:
    """
    @notice What `claimRewardFor` would pay.
    @param account Who is asked about.
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
    @notice The epoch that is running.
    @return uint256 Its number, from 0.
    """
    return self._epoch()


@external
@view
def get_settlers() -> DynArray[address, MOST_SETTLERS]:
    """
    @notice Who may propose roots.
    @return DynArray Their accounts.
    """
    return self.settlers


@external
@view
def ready_at() -> uint256:
    """
    @notice When the pending root can be activated; while paused, as if the pause ended now.
    @return uint256 Unix seconds; 0 where none is pending.
    """
    return self._ready_at()


@external
@view
def is_claimable(account: address, total: uint256, proof: DynArray[bytes32, MOST_PROOF]) -> uint256:
    """
    @notice What `claim` would pay.
    @param account Who earned it.
    @param total All it ever earned.
    @param proof Siblings from its leaf to the root.
    @return uint256 Base units; 0 when the proof does not lead to the active root, or while paused.
    """
    if pausable.paused or total <= self.claimed[account] or not self._is_proof(account, total, proof):
        return 0
    return total - self.claimed[account]


@external
def set_settlers(settlers: DynArray[address, MOST_SETTLERS], needed: uint256):
    """
    @notice Names who proposes roots; votes so far are void, a pending root stays.
    @param settlers Their accounts, none twice.
    @param needed How many must propose the same root.
    """
    ownable._check_owner()
    self._set_settlers(settlers, needed)


@external
def pause():
    """
    @notice Stops proposals, activations, claims, and the clock of a pending root.
    """
    ownable._check_owner()
    pausable._pause()
    self.paused_at = block.timestamp


@external
def unpause():
    """
    @notice Lifts the pause. A pending root can be disputed for as long as when the pause began.
    """
    ownable._check_owner()
    self.ends_at = self._ready_at()
    pausable._unpause()


@internal
def _set_settlers(settlers: DynArray[address, MOST_SETTLERS], needed: uint256):
    assert needed > 0 and needed <= len(settlers), "pool: cannot be reached"
    seen: DynArray[address, MOST_SETTLERS] = []
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
    if msg.sender != account and msg.sender != CLAIM_WORDS:
        assert staticcall Registry(REGISTRY).sponsor_of(account) == msg.sender, "pool: not the account or its sponsor"


@internal
@view
def _is_proof(account: address, total: uint256, proof: DynArray[bytes32, MOST_PROOF]) -> bool:
    if self.active.root == empty(bytes32):
        return False
    # Hashed twice: no inner node of the tree can pass for a leaf.
    leaf: bytes32 = keccak256(abi_encode(keccak256(abi_encode(account, total))))
    return merkle._verify(proof, self.active.root, leaf)


@internal
@view
def _check_proof(account: address, total: uint256, proof: DynArray[bytes32, MOST_PROOF]):
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
    pausable._require_not_paused()
    assert total > self.claimed[account], "pool: nothing to claim"
    amount: uint256 = total - self.claimed[account]
    # A root whose leaves add up to more than it says must not take what later roots will owe to others.
    assert self.claimed_total + amount <= self.active.total, "pool: beyond the root's total"
    self.claimed[account] = total
    self.claimed_total += amount
    log Claimed(account=account, payout=payout, amount=amount, total=total)
    log RewardClaimed(agent=account, amount=amount)
    paid: bool = raw_call(payout, b"", value=amount, revert_on_failure=False)
    assert paid, "pool: payout refuses money"
    return amount
