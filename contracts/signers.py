"""A wallet's key as a signer of transactions, and of claims (EIP-712)."""

from __future__ import annotations

from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data

from contracts.artifacts import REWARD_POOL
from contracts.transaction_broadcaster import TransactionSigner
from protocol.chain.keccak import Address


def signer_of(key: bytes) -> TransactionSigner:
    """Return the signer of a 32-byte private key. Raises `ValueError` for any other key."""
    signer: TransactionSigner = Account.from_key(key)
    return signer


def claim_message(
    chain_id: int,
    account: Address,
    payout: Address,
    total: int,
    deadline_s: int,
    *,
    pool: Address = REWARD_POOL,
) -> dict[str, Any]:
    """Make the message that `account` signs to have its rewards paid to `payout`.

    The signature is valid for one total, on one chain, at one contract, until the deadline.
    """
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Claim": [
                {"name": "account", "type": "address"},
                {"name": "payout", "type": "address"},
                {"name": "total", "type": "uint256"},
                {"name": "deadline", "type": "uint256"},
            ],
        },
        "primaryType": "Claim",
        "domain": {
            "name": "HyperGPU RewardPool",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": pool,
        },
        "message": {"account": account, "payout": payout, "total": total, "deadline": deadline_s},
    }


def sign_claim(key: bytes, message: dict[str, Any]) -> bytes:
    """Sign a `claim_message`. Returns 65 bytes."""
    return bytes(Account.sign_message(encode_typed_data(full_message=message), key).signature)
