"""Runs that begin from given weights: what the manifest says of them.

`initial` in a manifest is the digest of the first state: the weights, and a momentum of zeros. Each
member reads the weights from its own disk or gets them from another member, and checks them.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from protocol.averaging.outer_step import state_digest
from protocol.averaging.vector_layout import Vector
from protocol.errors import UserError
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest


def initial_digest(parameters: Vector) -> str:
    """Return the digest of the state with these parameters and no momentum, in hex.

    `parameters` is float32 of shape (parameters,).
    """
    return state_digest(parameters, np.zeros_like(parameters)).hex()


def check_beginning(manifest: Manifest) -> None:
    """Raise `UserError("FROM")` for a run that cannot begin from weights."""
    if manifest.rules < RULES_4:
        raise UserError(
            "FROM",
            f"A run of rules {manifest.rules} cannot begin from weights.",
            why=f"its manifest has no field for them; rules {RULES_4} have one",
            fix=f"write rules = {RULES_4} in the run's file",
            exit_code=2,
        )
    if manifest.engine != "native":
        raise UserError(
            "FROM",
            f"A run with the engine {manifest.engine!r} cannot begin from weights.",
            fix='write engine = "native" in the run\'s file',
            exit_code=2,
        )


def begin_from(manifest: Manifest, parameters: Vector) -> Manifest:
    """Return the manifest of the run that begins with these parameters.

    Raises `UserError("FROM")` for rules that have no initial state, and where the manifest names
    another one.
    """
    check_beginning(manifest)
    found = initial_digest(parameters)
    if manifest.initial not in ("", found):
        raise UserError(
            "FROM",
            "These are not the weights that the run's file names.",
            why=f"their digest is {found}, and the file says initial = {manifest.initial!r}",
            fix="give the right weights, or remove initial from the file to begin another run",
            exit_code=2,
        )
    return replace(manifest, initial=found)
