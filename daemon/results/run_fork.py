"""Begins a new run from a model of another run in this home."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from daemon.chain.home_runs import keep_manifest
from daemon.disk.initial_file import InitialFile
from daemon.results.run_model import RunModel
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.rules.versions import RULES_4
from protocol.run.initial_state import begin_from
from protocol.run.manifest import SignedManifest, seal

# As in the manifest.
MOST_NAME_CHARS = 64


def fork_run(home: Path, model: RunModel, name: str, signer: Signer) -> SignedManifest:
    """Return the manifest of a new run, whose weights and manifest are in the home on return.

    The new run has the task and the settings of the old one. It has no chain, because the old run's
    contract pays for the old run alone, and admits by the default rule.

    Args:
        home: the home.
        model: the weights to begin with, and the run that they are from.
        name: the name of the new run.
        signer: the new run's founder and owner.

    Raises:
        UserError: "MANIFEST" for a name that no run can have; "FROM" for an engine that cannot
            begin from weights.
        DiskFull: where the home cannot be written.
    """
    try:
        if not 1 <= len(name) <= MOST_NAME_CHARS or not name.isprintable():
            raise ValueError(f"it has {len(name)} characters")
        manifest = replace(
            model.signed.open(),
            name=name,
            rules=RULES_4,
            owner=signer.peer,
            founders=(signer.peer,),
            admission=UNSET,
            settlement=UNSET,
            chain="none",
            initial="",
        )
        signed = seal(begin_from(manifest, model.parameters), signer)
    except ValueError as error:
        raise UserError(
            "MANIFEST",
            f"No run can be called {name[:80]!r}.",
            why=str(error),
            fix="give it a name of 1 to 64 printable characters",
            exit_code=2,
        ) from None
    InitialFile(home, signed.run).save(model.parameters)
    keep_manifest(home, signed)
    return signed
