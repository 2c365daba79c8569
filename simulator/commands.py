"""The simulator's commands, which the entry point `simulator` adds to `hypergpud`."""

from __future__ import annotations

from daemon.cli.command_table import Command

COMMANDS = (
    Command(
        name="simulate",
        module="simulator.cli",
        section="Develop",
        help="Play scenarios in a simulated world and check every invariant.",
    ),
    Command(
        name="bench",
        module="simulator.bench.cli",
        section="Develop",
        help="Measure this version with real processes on this machine.",
    ),
)
