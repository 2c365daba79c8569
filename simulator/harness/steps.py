"""What can be done to a member and where in its round.

Imports nothing: the command line shows these words without loading a swarm.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["kill", "stop"]
"""SIGKILL, and SIGSTOP: a crash, and a closed lid."""

Step = Literal["scatter", "reduce", "gather", "vote"]
"""On entering a phase of the round, or ("gather") when the member has summed its own slice and told nobody yet."""

KINDS: tuple[Kind, ...] = ("kill", "stop")
STEPS: tuple[Step, ...] = ("scatter", "reduce", "gather", "vote")
