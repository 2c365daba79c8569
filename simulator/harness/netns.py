"""Network namespaces with shaped links: every member is a machine behind a cable of its own.

    hub (bridge) ── veth ── member 0    10.213.0.10
                 ── veth ── member 1    10.213.0.11  ...

Namespaces need root. No namespace has a name, and nothing is made outside of them: each exists
through one process that sleeps in it until its standard input closes. When the process that made
them ends, those processes end too, and the kernel removes namespaces, bridge, cables and queues.

Bandwidth comes from `tbf` on both ends of a cable. netem is not in every kernel, so latency comes
from `relay`, or for whole machines from `packet_delay`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from protocol.errors import UserError

# The addresses run from 10.213.0.10 to .73.
MAX_MEMBERS = 64
SUBNET = "10.213.0"
FIRST_HOST = 10
READY = b"in\n"
# The time for one `ip` or `tc` command: milliseconds, unless the machine is in trouble.
COMMAND_S = 10.0
# Packets under way at once: 1 Gbit/s for a second.
NETEM_PACKETS = "100000"
# What a queue may hold before it drops packets: a home router's queue, not a data centre's.
LATENCY = "100ms"
# tbf passes no packet that is larger than its bucket. Below this size veth cuts segments of up to
# 64 KB to the MTU.
LEAST_BURST_BYTES = 16_384


def missing_for_namespaces() -> str:
    """Why there can be no namespaces on this machine; empty when there can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: util-linux, iproute2)"
    if os.geteuid() != 0:
        return "not root"
    tried = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    return tried.stderr.strip() if tried.returncode else ""


def missing_for_netem() -> str:
    """Why the kernel cannot hold packets on a cable.

    Empty when it can, and where there can be no namespaces at all.
    """
    if missing_for_namespaces():
        return ""
    tried = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    said = subprocess.run(tried, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    return "no netem in this kernel" if said.returncode else ""


class Namespaces:
    """One namespace for each member, and the hub between them. `namespaces` makes it."""

    def __init__(self, subnet: str = SUBNET) -> None:
        self.subnet = subnet
        self._holders: list[subprocess.Popen[bytes]] = []
        self._hub: int = 0

    def __len__(self) -> int:
        return len(self._holders) - 1

    def host(self, member: int) -> str:
        """The member's address."""
        return f"{self.subnet}.{FIRST_HOST + member}"

    def prefix(self, member: int) -> tuple[str, ...]:
        """The words that make a command run in the member's namespace.

        The command keeps its process number.
        """
        return ("nsenter", f"--net=/proc/{self._pid(member)}/ns/net", "--")

    def run(self, member: int, *command: str) -> str:
        """Run a short command in the member's namespace. Raises `UserError("NETNS")`."""
        return _run([*self.prefix(member), *command])

    @property
    def hub(self) -> int:
        """The process that holds the namespace of the bridge `hub`."""
        return self._hub

    def run_in_hub(self, *command: str) -> str:
        """Run a short command in the bridge's namespace. Raises `UserError("NETNS")`."""
        return _in(self._hub, *command)

    def shape(self, member: int, *, uplink_bps: float | None, downlink_bps: float | None) -> None:
        """Set the bandwidth of the member's cable each way, bits per second; None is unlimited."""
        _shape(self._pid(member), "eth0", uplink_bps)
        _shape(self._hub, f"m{member}", downlink_bps)

    def delay(self, member: int, seconds: float) -> None:
        """Hold every packet on the member's cable for this long, each way.

        Raises:
            UserError: With code NETNS, where the kernel has no netem.
        """
        for pid, device in ((self._pid(member), "eth0"), (self._hub, f"m{member}")):
            try:
                # Where the cable has a rate, netem goes under its queue: tbf has one child.
                shaped = "tbf" in _in(pid, "tc", "qdisc", "show", "dev", device)
                place = ("parent", "1:1") if shaped else ("root",)
                _in(
                    pid,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    device,
                    *place,
                    "netem",
                    "delay",
                    f"{1e6 * seconds:.0f}us",
                    "limit",
                    NETEM_PACKETS,
                )
            except UserError as error:
                fix = "leave --rtt out; hypergpud simulate has latencies in virtual time"
                raise UserError(
                    "NETNS",
                    "Cannot give links a latency on this machine.",
                    why=f"netem: {error}",
                    fix=fix,
                ) from None

    def cut(self, member: int) -> None:
        """Pull the cable: packets vanish without a notice."""
        _in(self._hub, "ip", "link", "set", f"m{member}", "nomaster")

    def mend(self, member: int) -> None:
        """Put the cable back."""
        _in(self._hub, "ip", "link", "set", f"m{member}", "master", "hub")

    # ---------------------------------------------------------------- setup

    def _pid(self, member: int) -> int:
        return self._holders[1 + member].pid

    def make(self, count: int) -> None:
        self._hub = self._hold()
        _in(self._hub, "ip", "link", "add", "hub", "type", "bridge")
        _in(self._hub, "ip", "link", "set", "hub", "up")
        for member in range(count):
            inside = self._hold()
            _in(
                self._hub,
                "ip",
                "link",
                "add",
                f"m{member}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(inside),
            )
            _in(self._hub, "ip", "link", "set", f"m{member}", "master", "hub", "up")
            _in(inside, "ip", "address", "add", f"{self.host(member)}/24", "dev", "eth0")
            _in(inside, "ip", "link", "set", "eth0", "up")
            _in(inside, "ip", "link", "set", "lo", "up")

    def _hold(self) -> int:
        """Start a process in a namespace of its own, which ends when its standard input closes."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo in; exec cat >/dev/null"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._holders.append(holder)
        assert holder.stdout is not None
        if holder.stdout.readline() != READY:
            raise UserError(
                "NETNS", "Cannot make a network namespace.", why=missing_for_namespaces()
            )
        return holder.pid

    def close(self) -> None:
        for holder in self._holders:
            for pipe in (holder.stdin, holder.stdout):
                if pipe is not None:
                    pipe.close()
        for holder in self._holders:
            try:
                holder.wait(COMMAND_S)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
        self._holders.clear()


@contextmanager
def namespaces(count: int, subnet: str = SUBNET) -> Iterator[Namespaces]:
    """Make namespaces for `count` members, connected and not shaped.

    `subnet` is the first three parts of their addresses. Raises `UserError("NETNS")` where
    namespaces are impossible.
    """
    if not 1 <= count <= MAX_MEMBERS:
        raise ValueError(f"{count} namespaces: 1 to {MAX_MEMBERS} fit the subnet")
    if reason := missing_for_namespaces():
        raise UserError(
            "NETNS",
            "Cannot make network namespaces.",
            why=reason,
            fix="run as root, or use the relay",
        )
    made = Namespaces(subnet)
    try:
        made.make(count)
        yield made
    finally:
        made.close()


def _shape(pid: int, device: str, bits: float | None) -> None:
    subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "tc", "qdisc", "del", "dev", device, "root"],
        capture_output=True,
        timeout=COMMAND_S,
        check=False,  # There may be no queue.
    )
    if bits is not None:
        burst = max(LEAST_BURST_BYTES, int(bits / 8 / 100))  # 10 ms: more than a kernel tick.
        _in(
            pid,
            "tc",
            "qdisc",
            "add",
            "dev",
            device,
            "root",
            "handle",
            "1:",
            "tbf",
            "rate",
            f"{int(bits)}bit",
            "burst",
            str(burst),
            "latency",
            LATENCY,
        )


def _in(pid: int, *command: str) -> str:
    return _run(["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise UserError(
            "NETNS",
            f"{' '.join(command[3:])} failed in a network namespace.",
            why=done.stderr.strip(),
        )
    return done.stdout
