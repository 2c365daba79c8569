"""What a node with a stage answers to `hypergpud generate` and `api` of the same home."""

from __future__ import annotations

import msgspec

from daemon.services.inference.service import InferenceService
from protocol.ports.network import Network


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """The stage of this home, and where clients reach it."""

    model: str
    name: str
    addresses: tuple[str, ...]
    generations: int
    detail: str


def report_stage(service: InferenceService, network: Network) -> bytes:
    """Return the report as JSON."""
    return msgspec.json.encode(
        StageReport(
            model=service.model.hex(),
            name=service.manifest.name,
            addresses=network.addresses,
            generations=service.open_generations,
            detail=service.status().detail,
        )
    )
