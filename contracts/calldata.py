"""Calldata of the contracts at the precompile addresses: 32-byte words without a selector.

    0x20 inference   model hash, digest of token ids in, of token ids out, agent, tokens
    0x21 register    name, model hash, number of capabilities, capabilities ... [, agent]
    0x22 heartbeat   nothing, or the agent
    0x23 claim       nothing, or the account

The bytes are those that Plumise reads. This project's contracts also accept more words behind the
address: for 0x22 the certified samples and the last certificate, for 0x23 the total ever earned and
its proof. Addresses are left-padded. They are present only if another account sends the
transaction, or if more words follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.chain.keccak import Address, account_bytes
from protocol.chain.port import Hash, InferenceRecord

WORD_BYTES = 32
# String[96] in the contracts.
MAX_REASON_BYTES = 96


def name_word(name: str) -> bytes:
    """Encode a name as UTF-8, padded with zeros on the right.

    A longer name is cut between two characters.
    """
    return name.encode()[:WORD_BYTES].decode("utf-8", "ignore").encode().ljust(WORD_BYTES, b"\0")


def account_word(account: Address) -> bytes:
    return account_bytes(account).rjust(WORD_BYTES, b"\0")


def number_word(number: int) -> bytes:
    """Encode a uint256. Raises `OverflowError` for any other number."""
    return number.to_bytes(WORD_BYTES, "big")


def hash_word(digest: Hash) -> bytes:
    """Encode a hash. Raises `ValueError` unless it has 32 bytes."""
    if len(digest) != WORD_BYTES:
        raise ValueError(f"a hash has {WORD_BYTES} bytes, not {len(digest)}")
    return bytes(digest)


def inference_calldata(record: InferenceRecord, agent: Address) -> bytes:
    """Encode a call of 0x20."""
    return b"".join(
        (
            hash_word(record.model),
            hash_word(record.inputs),
            hash_word(record.outputs),
            account_word(agent),
            number_word(record.tokens),
        )
    )


def register_calldata(
    name: str, model: Hash, capabilities: Sequence[Hash], agent: Address | None = None
) -> bytes:
    """Encode a call of 0x21. `agent` is the account to register if it is not the sender."""
    words = [
        name_word(name),
        hash_word(model),
        number_word(len(capabilities)),
        *(hash_word(each) for each in capabilities),
    ]
    return b"".join(words if agent is None else [*words, account_word(agent)])


def heartbeat_calldata(agent: Address | None = None) -> bytes:
    """Encode a call of 0x22 as on Plumise."""
    return b"" if agent is None else account_word(agent)


def heartbeat_figures_calldata(agent: Address, samples: int, certificate: Hash) -> bytes:
    """Encode a call of 0x22 with certified samples and the last certificate."""
    return account_word(agent) + number_word(samples) + hash_word(certificate)


def claim_calldata(account: Address | None = None) -> bytes:
    """Encode a call of 0x23 as on Plumise."""
    return b"" if account is None else account_word(account)


def claim_proof_calldata(account: Address, total: int, proof: Sequence[Hash]) -> bytes:
    """Encode a call of 0x23 with the account's total and its proof."""
    return account_word(account) + number_word(total) + b"".join(hash_word(each) for each in proof)


def shortened(reason: str) -> str:
    """Shorten a reason to what the contracts accept, between two characters."""
    return reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore")
