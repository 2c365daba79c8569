"""The report of `hypergpud doctor --network` as text. Pure, and quick to import."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.cli.terminal.ink import Ink
from protocol.identity import PeerId
from protocol.network.network_report import FamilyLine, MappingLine, NetworkReport, PortLine
from protocol.status.figures import clean, duration, size, tail

LABEL = 14
_STYLES = {
    "callable": "green",
    "misnamed": "red",
    "only_by_relay": "yellow",
    "nobody_answers": "red",
}
_NATS = {
    "unknown": "not measured",
    "none": "none: members see this node at an address of its own",
    "cone": "cone: the router keeps one port, so that pairs can connect through it",
    "symmetric": "symmetric: the router changes ports, so that pairs need a relay",
}
_ONLY_443 = {None: "not measured", True: "yes: no other port leads out", False: "no"}

# What each state of the mapping says about a second router.
_DOUBLE = {"mapped": "no", "double_nat": "yes"}


def network_text(report: NetworkReport, names: Mapping[PeerId, str], color: bool) -> str:
    """One line for each measurement, and the remedy at the end. `names` are those of peers."""
    ink = Ink(color)
    mapping = report.mapping
    lines = [
        ink(_STYLES.get(report.verdict, ""), report.sentence),
        _line("control port", _port(report.control)),
        _line("bulk port", _port(report.bulk) if report.bulk.port else "none"),
        _line("NAT", _NATS[report.nat]),
        _line("router", _mapping(mapping)),
        _line("IPv6 router", _mapping(report.pinholes)),
        _line("double NAT", _DOUBLE.get(mapping.state, f"not measured: {mapping.reason}")),
        _line("IPv4", _family(report.ipv4)),
        _line("IPv6", _family(report.ipv6)),
        _line("443 only", _ONLY_443[report.only_443]),
        _line("relayed", f"{size(report.relayed_for_others_bytes)} for others"),
    ]
    lines += [
        _line(
            "peer" if not index else "",
            f"{clean(names.get(one.peer, ''), 40) or tail(one.peer)}: {one.path},"
            f" {duration(one.rtt_s)}, {clean(one.reason, 200)}",
        )
        for index, one in enumerate(report.peers)
    ]
    if report.remedy:
        lines.append(_line("to do", report.remedy))
    return "\n".join(lines)


def _mapping(mapping: MappingLine) -> str:
    lease = (
        "" if mapping.lease_left_s is None else f", lease ends in {duration(mapping.lease_left_s)}"
    )
    protocol = f" ({mapping.protocol})" if mapping.protocol else ""
    return f"{mapping.state}{protocol}: {mapping.reason}{lease}"


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{text}"


def _port(line: PortLine) -> str:
    if line.open is None:
        return f"{line.port}, not measured: no member called it"
    members = f"{line.tried} member{'s' if line.tried > 1 else ''}"
    what = "open: a call arrived" if line.open else "closed: no call arrived"
    return f"{line.port}, {what} ({members} tried)"


def _family(line: FamilyLine) -> str:
    local = ", ".join(line.local) or "none"
    seen = f", seen at {line.observed}" if line.observed else ""
    return f"local {local}{seen}; {line.reason}"
