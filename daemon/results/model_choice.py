"""Says which model of a run a command uses."""

from __future__ import annotations

import msgspec


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which model a command uses.

    `run` is the beginning of a run's id, or None for the home's last run. `certificate` is a number
    or the beginning of a hash, or None for the newest. With `join`, the model comes from the swarm.
    """

    run: str | None = None
    certificate: str | None = None
    join: tuple[str, ...] = ()
