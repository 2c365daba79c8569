"""Makes roots active, and asks for claims of accounts without keys."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.abi import call_data
from contracts.artifacts import (
    REWARD_POOL,
)
from protocol.chain.keccak import Address
from protocol.chain.port import Proposal
from tests.contracts.ground import DELAY_S, EPOCH_S
from tests.contracts.levers import Levers
from tests.ports.chain_kit import ANNA, SETTLERS, done


def activate_root(ground: Levers, root: bytes, total: int) -> None:
    """Make `root` the active one, whatever tree it is or is not of."""
    ground.advance(EPOCH_S)
    anna = ground.chain(ANNA)
    proposal = Proposal(epoch=anna.pool().epoch - 1, root=root, total=total)
    for name in SETTLERS[:2]:
        settler = ground.chain(name)
        done(settler, settler.propose(proposal))
    ground.advance(DELAY_S)
    done(anna, anna.activate())


def call_as(ground: Levers, account: Address, total: int, proof: Sequence[bytes]) -> str:
    """Return what a claim would answer to an account whose key the test does not have."""
    data = call_data("claim(address,uint256,bytes32[])", account, total, list(proof))
    asked = {"from": account, "to": REWARD_POOL, "data": "0x" + data.hex()}
    return str(ground.transport("eth_call", (asked, "latest")))
