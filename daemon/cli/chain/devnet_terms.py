"""Writes the settings that a run and a home need for a devnet, as text that can be pasted.

They are the run's `[settlement]`, the home's `[chain]`, and the settlers.
"""

from __future__ import annotations

import msgspec

from contracts.artifacts import REWARD_POOL
from contracts.chain_settings import ChainSettings
from contracts.client import connect
from contracts.devnet.genesis import dev_account, dev_key
from protocol.chain.keccak import Address

# The names of the accounts with public keys.
KNOWN_NAMES = ("owner", "settler 0", "settler 1", "settler 2")


class DevnetTerms(msgspec.Struct, frozen=True, kw_only=True):
    """A devnet that answers; what `devnet --json` prints."""

    url: str
    chain_id: int
    block: int
    contract: Address  # the reward pool
    settlers: tuple[Address, ...]
    needed: int
    epoch_s: int


def terms_of(url: str, chain_id: int) -> DevnetTerms:
    """Asks the chain at `url`. Raises `ChainError`."""
    chain = connect(ChainSettings(profile="hypergpu", chain_id=chain_id, urls=(url,)), None, None)
    pool = chain.pool()
    return DevnetTerms(
        url=url,
        chain_id=chain_id,
        block=chain.head().number,
        contract=REWARD_POOL,
        settlers=pool.settlers,
        needed=pool.needed,
        epoch_s=pool.epoch_s,
    )


def pasteable(terms: DevnetTerms) -> str:
    """Return the terms as TOML for a run's file and a home's config.

    The settlers follow with their keys, which are public.
    """
    known = {dev_account(name): "0x" + dev_key(name).hex() for name in KNOWN_NAMES}
    settlers = [
        f"#   {one}{f'  key {known[one]}' if one in known else ''}" for one in terms.settlers
    ]
    lines = [
        "# In the run's file (hypergpud start --run FILE):",
        'chain = "hypergpu"  # above the first [section]',
        "",
        "[settlement]",
        f"chain_id = {terms.chain_id}",
        f'contract = "{terms.contract}"  # the reward pool',
        "",
        "# In config.toml of every home that is paid, or settles:",
        "[chain]",
        f'rpc = ["{terms.url}"]',
        "confirmations = 1",
        "",
        f"# Settlers; {terms.needed} of {len(terms.settlers)} must propose the same root"
        f" (hypergpud wallet import, then settle):",
        *settlers,
    ]
    return "\n".join(lines)
