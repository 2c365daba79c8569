# pragma version 0.4.3
"""
@title Ownership of a contract
@license Apache-2.0
@notice One account, the owner, may do what others may not (EIP-173).
@dev A contract that initializes this module sets its owner once, with `_set_owner`.
"""

owner: public(address)


event OwnershipTransferred:
    previous_owner: indexed(address)
    new_owner: indexed(address)


@external
def transfer_ownership(new_owner: address):
    """
    @notice Makes `new_owner` the owner. Only the owner may call this.
    @param new_owner The next owner; the zero address is refused.
    """
    self._check_owner()
    assert new_owner != empty(address), "ownable: no new owner"
    self._set_owner(new_owner)


@internal
@view
def _check_owner():
    """
    @notice Reverts unless the caller is the owner.
    """
    assert msg.sender == self.owner, "ownable: not the owner"


@internal
def _set_owner(new_owner: address):
    """
    @notice Makes `new_owner` the owner without asking who calls.
    @param new_owner The next owner.
    """
    previous: address = self.owner
    self.owner = new_owner
    log OwnershipTransferred(previous_owner=previous, new_owner=new_owner)
