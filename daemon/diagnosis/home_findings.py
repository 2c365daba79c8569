"""Findings about the home: settings, files, key, run, daemon, ports."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
from msgspec import UNSET

from daemon.config.settings import Config
from daemon.control.client import call
from daemon.diagnosis.finding import Finding, Verdict
from daemon.home.layout import KEY_FILE, WALLET_FILE
from daemon.home.lock import find_holder
from daemon.home.node_key import load_or_make_key
from daemon.home.recent_state import last_run
from protocol.errors import UserError
from protocol.identity import short
from protocol.run.manifest import SignedManifest
from protocol.status import Status
from protocol.status.figures import quantity
from protocol.status.node_records import ClockSummary
from protocol.text.printable import printable

_VERDICTS: dict[str, Verdict] = {"bad": "blocked", "warning": "warning"}


def of_error(what: str, error: UserError) -> Finding:
    """Return the finding for what a start would refuse."""
    evidence = f"{error.what.rstrip('.')}" + (f": {error.why}" if error.why else "")
    return Finding(what=what, verdict="blocked", evidence=evidence, fix=error.fix)


def home_finding(home: Path) -> Finding:
    """Look at whether the home exists and can be written."""
    if not home.exists():
        seen = f"{home} does not exist yet; hypergpud start makes it"
        return Finding(what="home", verdict="ok", evidence=seen)
    if not home.is_dir():
        fix = "move the file away, or name another home: --home PATH"
        return Finding(what="home", verdict="blocked", evidence=f"{home} is no folder", fix=fix)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        seen = f"this user cannot write into {home}"
        return Finding(what="home", verdict="blocked", evidence=seen, fix="run as its owner")
    if os.statvfs(home).f_flag & os.ST_RDONLY:
        seen = f"the file system of {home} is read-only"
        fix = "mount it with write access, or name another home: --home PATH"
        return Finding(what="home", verdict="blocked", evidence=seen, fix=fix)
    return Finding(what="home", verdict="ok", evidence=str(home))


def key_finding(home: Path) -> Finding:
    """Look at the node's key, without making one."""
    if not (home / KEY_FILE).exists():
        return Finding(what="key", verdict="ok", evidence="none yet; the first start makes it")
    try:
        signer, _ = load_or_make_key(home)
    except UserError as error:
        return of_error("key", error)
    return Finding(what="key", verdict="ok", evidence=f"peer id ...{short(signer.peer)}")


def run_finding(home: Path, config: Config) -> tuple[Finding, SignedManifest | None]:
    """Look at the last run: whether its task may run here, and whether it can pay."""
    signed = last_run(home)
    if signed is None:
        seen = "no run yet; begin with hypergpud start, or join with --join"
        return Finding(what="run", verdict="ok", evidence=seen), None
    manifest = signed.open()
    name = f"{printable(manifest.name)} ({signed.run.hex()[:12]})"
    if ":" in manifest.task and not config.worker.allow_custom_task:
        seen = f"the run {name} trains the code {manifest.task}, which is not allowed here"
        fix = "if you trust it: hypergpud config set worker.allow_custom_task true"
        return Finding(what="run", verdict="blocked", evidence=seen, fix=fix), signed
    if manifest.settlement is not UNSET and not (home / WALLET_FILE).exists():
        seen = f"the run {name} pays, and this home has no wallet"
        fix = "hypergpud wallet new"
        return Finding(what="run", verdict="warning", evidence=seen, fix=fix), signed
    return Finding(what="run", verdict="ok", evidence=f"{name}, task {manifest.task}"), signed


def daemon_findings(home: Path) -> list[Finding]:
    """Look at whether a node runs here, at its own verdict, and at its clock beside its peers'."""
    held = find_holder(home) if home.is_dir() else None
    if held is None:
        return [Finding(what="node", verdict="ok", evidence="it does not run: hypergpud start")]
    try:
        status = msgspec.json.decode(call(home, "status"), type=Status)
    except UserError as error:
        return [of_error("node", error)]
    verdict = _VERDICTS.get(status.level, "ok")
    fix = "hypergpud status, then hypergpud round --last 5" if verdict != "ok" else ""
    node = Finding(what="node", verdict=verdict, evidence=status.verdict, fix=fix)
    return [node, peer_clock_finding(status.you.clock)]


def peer_clock_finding(clock: ClockSummary) -> Finding:
    """Look at this machine's clock beside those of the peers that the node asked."""
    what = "clock of peers"
    if not clock.compared:
        seen = "no peer has told its time yet"
        return Finding(what=what, verdict="unknown", evidence=seen)
    if clock.text:
        seen, _, fix = clock.text.partition(". ")
        return Finding(what=what, verdict="warning", evidence=seen, fix=fix)
    peers = quantity(clock.compared, "peer")
    return Finding(what=what, verdict="ok", evidence=f"this clock agrees with those of {peers}")


def ports_finding(config: Config, home: Path) -> Finding:
    """Look at whether the ports that the settings name can be used."""
    wanted = {
        "network.listen_port": config.network.listen_port,
        "network.bulk_port": config.network.bulk_port,
    }
    named = {name: port for name, port in wanted.items() if port}
    if not named:
        return Finding(what="ports", verdict="ok", evidence="the system chooses them")
    if home.is_dir() and find_holder(home) is not None:
        return Finding(what="ports", verdict="ok", evidence="the node that runs here has them")
    for name, port in named.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((config.network.listen_host, port))
            except OSError as error:
                seen = f"{name} {port} cannot be used: {error.strerror}"
                fix = f"end the program that has it, or: hypergpud config set {name} 0"
                return Finding(what="ports", verdict="blocked", evidence=seen, fix=fix)
    shown = ", ".join(f"{name} {port}" for name, port in named.items())
    return Finding(what="ports", verdict="ok", evidence=f"{shown} are free")
