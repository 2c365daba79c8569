"""What can be done to a member, and where in its round.

This module imports nothing, so the command line shows these words without loading a swarm.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["kill", "stop"]
"""SIGKILL is a crash, SIGSTOP a closed lid."""

Step = Literal["scatter", "reduce", "gather", "vote"]
"""A phase of the round, struck on entry.

"gather" is when the member has summed its own slice and has sent it to nobody yet.
"""

KINDS: tuple[Kind, ...] = ("kill", "stop")
STEPS: tuple[Step, ...] = ("scatter", "reduce", "gather", "vote")
