"""A fault as a line of text."""

from __future__ import annotations

from simulator.faults.fault import NODE_AT_STEP, AnyFault


def describe(fault: AnyFault) -> str:
    """A line for a person."""
    where = f"at {fault.at_s:g} s" if fault.at_s is not None else ""
    if fault.when is not None:
        who = (
            f"node {fault.when.node}"
            if fault.when.node is not None
            else f"a {fault.when.role}"
            if fault.when.role != "any"
            else "any node"
        )
        phase = fault.when.enters
        if fault.when.number is not None:
            phase = f"{phase} of round {fault.when.number}"
        where = f"{fault.when.after_s:g} s after {who} enters {phase}"
    fields = {
        name: getattr(fault, name)
        for name in fault.__struct_fields__
        if name not in ("at_s", "when")
    }
    said = ", ".join(
        f"{name} {'that reached it' if value == NODE_AT_STEP else value}"
        for name, value in fields.items()
        if value is not None
    )
    return f"{where}: {type(fault).__name__} ({said})"
