# pragma version 0.4.3
"""
@title Pause of a contract
@license Apache-2.0
@notice A switch that stops a contract in an emergency.
@dev Who may use the switch is decided by the contract that initializes this module.
"""

paused: public(bool)


event Paused:
    account: address


event Unpaused:
    account: address


@internal
@view
def _check_running():
    """
    @notice Reverts while the contract is paused.
    """
    assert not self.paused, "pausable: paused"


@internal
def _pause():
    """
    @notice Pauses the contract. Reverts if the contract is paused already.
    """
    self._check_running()
    self.paused = True
    log Paused(account=msg.sender)


@internal
def _unpause():
    """
    @notice Ends the pause. Reverts if the contract is not paused.
    """
    assert self.paused, "pausable: not paused"
    self.paused = False
    log Unpaused(account=msg.sender)
