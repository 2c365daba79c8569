"""All findings about a home and its machine, in the order in which a start would meet them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.config.loader import load_config
from daemon.config.settings import Config
from daemon.diagnosis.chain_finding import chain_finding
from daemon.diagnosis.finding import Diagnosis, Finding
from daemon.diagnosis.home_findings import (
    daemon_findings,
    home_finding,
    key_finding,
    of_error,
    ports_finding,
    run_finding,
)
from daemon.diagnosis.machine import (
    clock_finding,
    device_finding,
    disk_finding,
    memory_finding,
)
from protocol.errors import UserError


def diagnose(home: Path, config_file: Path | None, environ: Mapping[str, str]) -> Diagnosis:
    """Look at everything that needs no other node. Changes nothing; may take seconds."""
    findings: list[Finding] = []
    config = Config(home=home)
    try:
        config, _ = load_config(home, config_file, {}, environ)
        findings.append(Finding(what="settings", verdict="ok", evidence="all are valid"))
    except UserError as error:
        findings.append(of_error("settings", error))
    where = home_finding(home)
    findings += [where, disk_finding(home), memory_finding(), clock_finding()]
    findings.append(device_finding(config.worker))
    if where.verdict == "ok":
        of_run, signed = run_finding(home, config)
        findings += [key_finding(home), of_run, ports_finding(config, home)]
        chain = chain_finding(home, config, signed)
        findings += [chain] if chain is not None else []
        findings += daemon_findings(home)
    return Diagnosis(findings=tuple(findings))
