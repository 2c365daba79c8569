"""Makes roots active, and asks for claims of accounts without keys."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.abi import call_data
from contracts.artifacts import (
    REWARD_POOL,
)
from protocol.chain.keccak import Address
from protocol.chain.port import Proposal
from tests.contracts.testnet_controls import ControlledTestnet
from tests.contracts.testnets import DELAY_S, EPOCH_S
from tests.ports.chain_kit import ANNA, SETTLERS, done


def activate_root(testnet: ControlledTestnet, root: bytes, total: int) -> None:
    """Propose and activate `root`, which need not be the root of a valid tree."""
    testnet.advance(EPOCH_S)
    anna = testnet.chain(ANNA)
    proposal = Proposal(epoch=anna.pool().epoch - 1, root=root, total=total)
    for name in SETTLERS[:2]:
        settler = testnet.chain(name)
        done(settler, settler.propose(proposal))
    testnet.advance(DELAY_S)
    done(anna, anna.activate())


def call_as(
    testnet: ControlledTestnet, account: Address, total: int, proof: Sequence[bytes]
) -> str:
    """Return what a claim would answer to an account whose key the test does not have."""
    data = call_data("claim(address,uint256,bytes32[])", account, total, list(proof))
    asked = {"from": account, "to": REWARD_POOL, "data": "0x" + data.hex()}
    return str(testnet.transport("eth_call", (asked, "latest")))
