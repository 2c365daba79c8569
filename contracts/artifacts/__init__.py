"""The compiled contracts, as `make contracts` wrote them from `contracts/src`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

REGISTER_PRECOMPILE = "0x0000000000000000000000000000000000000021"
HEARTBEAT_PRECOMPILE = "0x0000000000000000000000000000000000000022"
CLAIM_PRECOMPILE = "0x0000000000000000000000000000000000000023"
REWARD_POOL = "0x0000000000000000000000000000000000001000"  # where Plumise has its pool
AGENT_REGISTRY = "0x0000000000000000000000000000000000001001"
SESSIONS = "0x0000000000000000000000000000000000001002"

PLACES = {
    "register_words": REGISTER_PRECOMPILE,
    "heartbeat_words": HEARTBEAT_PRECOMPILE,
    "claim_words": CLAIM_PRECOMPILE,
    "reward_pool": REWARD_POOL,
    "agent_registry": AGENT_REGISTRY,
    "sessions": SESSIONS,
}
"""Which contract is where: fixed by the genesis, and written into the contracts that call each other."""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One compiled contract. `bytecode` creates it; `layout` says in which slots its state lies."""

    contract: str
    compiler: str
    source_sha256: str
    abi: list[dict[str, Any]]
    bytecode: str
    bytecode_runtime: str
    layout: dict[str, Any]


@cache
def artifact(contract: str) -> Artifact:
    """Raises `FileNotFoundError` for a contract that is none of ours."""
    return msgspec.json.decode(
        files(__name__).joinpath(f"{contract}.json").read_bytes(), type=Artifact
    )


def slots_of(found: Artifact) -> int:
    """One past the last storage slot of what is not a mapping's."""

    def last(part: dict[str, Any]) -> int:
        if "slot" in part:
            return int(part["slot"]) + int(part["n_slots"])
        return max((last(inner) for inner in part.values()), default=0)

    return last(found.layout.get("storage_layout", {}))
