"""Which run a daemon works on: a TOML file, or the one that comes with HyperGPU."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from protocol.errors import UserError
from protocol.identity import Signer
from protocol.manifest import Manifest, SignedManifest, load_manifest, parse_manifest, seal

BUNDLED_RUN = "stdlib-gpt.toml"


def bundled_run() -> Manifest:
    """The run that needs nothing but Python: a byte-level GPT on the standard library's own sources."""
    return parse_manifest(bundled_text(), f"the bundled {BUNDLED_RUN}")


def bundled_text() -> str:
    """Its file, as it comes."""
    return resources.files("configs").joinpath("runs", BUNDLED_RUN).read_text(encoding="utf-8")


def choose_run(file: Path | None) -> Manifest:
    """The manifest in `file`, else the bundled one. Raises `UserError("MANIFEST")`."""
    return bundled_run() if file is None else load_manifest(file)


def seal_run(manifest: Manifest, signer: Signer) -> SignedManifest:
    """The manifest as it travels. Raises `UserError("MANIFEST_OWNER")` for one that another key must sign."""
    if manifest.owner not in ("", signer.peer):
        raise UserError(
            "MANIFEST_OWNER",
            f"The run {manifest.name!r} belongs to {manifest.owner}, and only its owner can begin it.",
            why="its manifest must carry the owner's signature, which a TOML file cannot",
            fix="join it instead: hypergpud start --join MULTIADDR",
            exit_code=2,
        )
    return seal(manifest, signer if manifest.owner else None)
