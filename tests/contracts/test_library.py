"""The library of the contracts: ownership, pause, and signatures over typed data."""

from __future__ import annotations

import pytest
from eth_abi import decode

from contracts.abi import call_data
from contracts.artifacts import REWARD_POOL
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import dev_account, dev_key
from contracts.signers import claim_message, sign_claim
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import ZERO_ADDRESS, Address, account_bytes
from tests.contracts.testnet_controls import ControlledTestnet, call_raw
from tests.ports.chain_kit import ANNA, BERT, COLD, done, fund, settle

# The order of secp256k1's group (SEC 2, section 2.4.1).
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def transfer(new_owner: Address) -> bytes:
    return call_data("transfer_ownership(address)", new_owner)


def owner_of_pool(testnet: ControlledTestnet) -> bytes:
    return bytes.fromhex(call_raw(testnet, REWARD_POOL, call_data("owner()"))[-40:])


def test_ownable_lets_only_the_owner_name_the_next_owner(testnet: ControlledTestnet) -> None:
    owner = testnet.chain("owner")
    with pytest.raises(ChainRefused, match="ownable: not the owner"):
        call_raw(testnet, REWARD_POOL, transfer(dev_account(ANNA)), sender=ANNA)
    with pytest.raises(ChainRefused, match="ownable: no new owner"):
        call_raw(testnet, REWARD_POOL, transfer(ZERO_ADDRESS), sender="owner")
    assert owner_of_pool(testnet) == account_bytes(dev_account("owner"))
    event = "OwnershipTransferred(address,address)"
    done(owner, owner._send("transfer", "", REWARD_POOL, transfer(dev_account(ANNA)), event))
    assert owner_of_pool(testnet) == account_bytes(dev_account(ANNA))
    with pytest.raises(ChainRefused, match="ownable: not the owner"):
        call_raw(testnet, REWARD_POOL, transfer(dev_account(BERT)), sender="owner")
    call_raw(testnet, REWARD_POOL, transfer(dev_account(BERT)), sender=ANNA)


def test_pausable_refuses_a_second_pause_and_a_second_unpause(testnet: ControlledTestnet) -> None:
    owner = testnet.chain("owner")
    with pytest.raises(ChainRefused, match="pausable: not paused"):
        owner.pause(False)
    done(owner, owner.pause(True))
    with pytest.raises(ChainRefused, match="pausable: paused"):
        call_raw(testnet, REWARD_POOL, call_data("pause()"), sender="owner")
    done(owner, owner.pause(False))
    assert not owner.pool().paused


def test_malleable_signatures_are_refused(testnet: ControlledTestnet) -> None:
    """Each variant of a valid signature is refused, and the signature itself is accepted."""
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(testnet, 1000)
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    proof, deadline = tree.proof(anna.account), anna.head().at_s + 60
    message = claim_message(testnet.chain_id, anna.account, COLD, 300, deadline)
    valid = sign_claim(dev_key(ANNA), message)
    r, s, v = valid[:32], int.from_bytes(valid[32:64], "big"), valid[64]

    def claim(signature: bytes) -> None:
        done(bert, bert.claim_to(anna.account, COLD, 300, deadline, proof, signature))

    high = (ORDER - s).to_bytes(32, "big")
    compact = (s | (v - 27) << 255).to_bytes(32, "big")
    for signature, reason in (
        (r + high + bytes([55 - v]), "signature: s is not low"),
        (valid[:64] + b"\x1a", "signature: no signer"),
        (valid[:64] + b"\x00", "signature: no signer"),
        (bytes(32) + valid[32:], "signature: no signer"),
        # EIP-2098's compact form is a second form of the same signature.
        (r + compact, "pool: wrong signer"),
        (b"", "pool: wrong signer"),
    ):
        with pytest.raises(ChainRefused, match=reason):
            claim(signature)
    claim(valid)
    assert bert.balance(COLD) == 300


def test_the_signature_domain_is_described_by_eip_5267(testnet: ControlledTestnet) -> None:
    answer = call_raw(testnet, REWARD_POOL, call_data("eip712Domain()"))
    types = ["bytes1", "string", "string", "uint256", "address", "bytes32", "uint256[]"]
    assert decode(types, bytes.fromhex(answer[2:])) == (
        b"\x0f",
        "HyperGPU RewardPool",
        "1",
        testnet.chain_id,
        REWARD_POOL.lower(),
        bytes(32),
        (),
    )
