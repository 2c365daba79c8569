"""Calldata of the precompile addresses: raw 32-byte words, no selector, byte for byte as Plumise
reads them.

    0x21 register    name, model hash, number of capabilities, capabilities ... [, agent]
    0x22 heartbeat   nothing | agent            ours also: agent, certified samples, last certificate
    0x23 claim       nothing | account          ours also: account, total ever earned, proof ...

Accounts are left-padded. An account is only there when somebody else sends the transaction, or when
ours has words behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.chain.keccak import Address, account_bytes
from protocol.chain.port import Hash

WORD_BYTES = 32


def name_word(name: str) -> bytes:
    """UTF-8, right-padded with zeros; a longer name is cut between two characters, never inside
    one.
    """
    return name.encode()[:WORD_BYTES].decode("utf-8", "ignore").encode().ljust(WORD_BYTES, b"\0")


def account_word(account: Address) -> bytes:
    return account_bytes(account).rjust(WORD_BYTES, b"\0")


def number_word(number: int) -> bytes:
    """Raises `OverflowError` for what is no uint256."""
    return number.to_bytes(WORD_BYTES, "big")


def hash_word(digest: Hash) -> bytes:
    """Raises `ValueError` unless it has 32 bytes."""
    if len(digest) != WORD_BYTES:
        raise ValueError(f"a hash has {WORD_BYTES} bytes, not {len(digest)}")
    return bytes(digest)


def register_calldata(
    name: str, model: Hash, capabilities: Sequence[Hash], agent: Address | None = None
) -> bytes:
    """For 0x21. `agent` is who is registered when it is not the sender."""
    words = [
        name_word(name),
        hash_word(model),
        number_word(len(capabilities)),
        *(hash_word(each) for each in capabilities),
    ]
    return b"".join(words if agent is None else [*words, account_word(agent)])


def heartbeat_calldata(agent: Address | None = None) -> bytes:
    """For 0x22, as on Plumise."""
    return b"" if agent is None else account_word(agent)


def heartbeat_figures_calldata(agent: Address, samples: int, certificate: Hash) -> bytes:
    """For our 0x22: what was certified, behind the agent."""
    return account_word(agent) + number_word(samples) + hash_word(certificate)


def claim_calldata(account: Address | None = None) -> bytes:
    """For 0x23, as on Plumise."""
    return b"" if account is None else account_word(account)


def claim_proof_calldata(account: Address, total: int, proof: Sequence[Hash]) -> bytes:
    """For our 0x23: the proof behind the account."""
    return account_word(account) + number_word(total) + b"".join(hash_word(each) for each in proof)
