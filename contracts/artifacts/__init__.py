"""The compiled contracts, as `make contracts` wrote them from `contracts/src`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

INFERENCE_PRECOMPILE = "0x0000000000000000000000000000000000000020"
REGISTER_PRECOMPILE = "0x0000000000000000000000000000000000000021"
HEARTBEAT_PRECOMPILE = "0x0000000000000000000000000000000000000022"
CLAIM_PRECOMPILE = "0x0000000000000000000000000000000000000023"
# Plumise has its pool at the same address.
REWARD_POOL = "0x0000000000000000000000000000000000001000"
AGENT_REGISTRY = "0x0000000000000000000000000000000000001001"
SESSIONS = "0x0000000000000000000000000000000000001002"

PLACES = {
    "inference_precompile": INFERENCE_PRECOMPILE,
    "register_precompile": REGISTER_PRECOMPILE,
    "heartbeat_precompile": HEARTBEAT_PRECOMPILE,
    "claim_precompile": CLAIM_PRECOMPILE,
    "reward_pool": REWARD_POOL,
    "agent_registry": AGENT_REGISTRY,
    "sessions": SESSIONS,
}
"""The address of each contract.

The genesis fixes the addresses, and contracts that call each other contain them.
"""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One compiled contract.

    `sources` maps each source file to its digest, `bytecode` creates the contract, and `layout`
    says in which slots its state lies.
    """

    contract: str
    compiler: str
    sources: dict[str, str]
    abi: list[dict[str, Any]]
    bytecode: str
    bytecode_runtime: str
    layout: dict[str, Any]


@cache
def artifact(contract: str) -> Artifact:
    """Load a compiled contract. Raises `FileNotFoundError` for an unknown name."""
    return msgspec.json.decode(
        files(__name__).joinpath(f"{contract}.json").read_bytes(), type=Artifact
    )


def slots_of(found: Artifact) -> int:
    """Return the number of storage slots, mappings' entries aside."""

    def last(part: dict[str, Any]) -> int:
        if "slot" in part:
            return int(part["slot"]) + int(part["n_slots"])
        return max((last(inner) for inner in part.values()), default=0)

    return last(found.layout.get("storage_layout", {}))
