"""The container image and compose.yaml: checked against the code, and built where a builder is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.cli.command_table import all_commands
from daemon.config.settings import keys, variable

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "Containerfile"
# Variables that are no settings.
OTHER_VARIABLES = {"HYPERGPU_HOME"}
BUILD_S = 540.0


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile, each on one line."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line]


def of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services().items() if one["image"].startswith("hypergpu:")}


def known_variables() -> set[str]:
    return {variable(section, key) for section, key, _ in keys()} | OTHER_VARIABLES


def test_image_runs_as_a_user_without_rights_from_pinned_sources() -> None:
    names = [name for name, _ in instructions()]
    assert "ADD" not in names
    assert of("USER") == ["10001:10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "USER" not in names[: names.index("FROM")]
    (base,) = [rest for rest in of("ARG") if rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=[a-z.]+/[a-z/]+:\d[\w.-]*", base), "a base with a version"
    for run in of("RUN"):
        if "apt-get install" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run
        if "pip install" in run:
            assert "-c constraints.txt" in run
            assert "--no-cache-dir" in run


def test_image_copies_what_exists_and_what_its_build_context_holds() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    for copied in of("COPY"):
        if copied.startswith("--from"):
            continue
        *sources, _ = copied.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_image_knows_each_variable_and_command_that_it_names() -> None:
    (env,) = of("ENV")
    named = {part.partition("=")[0] for part in shlex.split(env)}
    assert {name for name in named if name.startswith("HYPERGPU_")} <= known_variables()
    assert of("ENTRYPOINT") == ['["hypergpud"]']
    assert of("CMD") == ['["start"]']
    assert "hypergpud" in of("HEALTHCHECK")[0]


def test_compose_has_the_promised_services() -> None:
    assert {"first", "second", "observer", "devnet", "prometheus", "grafana"} <= set(services())
    assert set(compose("compose.cuda.yaml")["services"]) <= set(services())


@pytest.mark.parametrize("name", sorted(services()))
def test_service_has_no_rights_and_a_read_only_root(name: str) -> None:
    one = services()[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in one
    if name in ours():
        assert one["user"] == "10001:10001"
        assert "/tmp" in one["tmpfs"]
    else:
        assert re.search(r":v?\d+\.\d+\.\d+$", one["image"]), "an image with a version"
    for port in one.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{port} is open to the network"


@pytest.mark.parametrize("name", sorted(services()))
def test_service_names_only_what_exists(name: str) -> None:
    one = services()[name]
    assert set(one.get("depends_on", ())) <= set(services())
    if (mode := one.get("network_mode", "")).startswith("service:"):
        assert mode.removeprefix("service:") in services()
    for volume in one.get("volumes", ()):
        source = volume.split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in compose()["volumes"]
    for key in one.get("environment", {}):
        assert not key.startswith("HYPERGPU_") or key in known_variables(), key


@pytest.mark.parametrize("name", sorted(ours()))
def test_service_runs_a_command_with_options_that_exist(name: str) -> None:
    command = ours()[name].get("command", ["start"])
    if len(command) == 1 and "hypergpud" in command[0]:
        command = shlex.split(command[0].partition("hypergpud")[2].split(">")[0])
    words = [word for word in command if word != "--quiet"]
    known = {one.name: one for one in all_commands()}
    assert words[0] in known
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", words[0], "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    for option in [word for word in words[1:] if word.startswith("--")]:
        assert option in done.stdout, f"{option} of {words[0]}: {done.stderr}"


def builder() -> list[str]:
    """Return the command of a builder that works here, or skip the test with the reason."""
    reasons = []
    for program, probe in (("podman", ["info"]), ("buildah", ["info"]), ("docker", ["info"])):
        found = shutil.which(program)
        if found is None:
            reasons.append(f"{program} is not installed")
            continue
        done = subprocess.run(
            [found, *probe], capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode == 0 and "Cannot connect" not in done.stdout + done.stderr:
            return [found, "build"]
        lines = (done.stderr or done.stdout).strip().splitlines()
        reasons.append(f"{program}: {lines[-1] if lines else 'it does not work here'}")
    pytest.skip(f"no image builder works here: {'; '.join(reasons)}")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(BUILD_S + 120)
def test_image_is_built_and_runs_with_a_read_only_root() -> None:
    build = builder()
    tag = "hypergpu-test:cpu"
    done = subprocess.run(
        [*build, "-t", tag, "-f", str(CONTAINERFILE), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode and re.search(r"pull|registry|lookup|manifest", done.stderr):
        pytest.skip(f"the base image cannot be fetched here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr[-4000:]
    if build[0].endswith("buildah"):
        return
    try:
        ran = subprocess.run(
            [
                build[0],
                "run",
                "--rm",
                "--read-only",
                "--tmpfs",
                "/tmp",
                "--cap-drop",
                "ALL",
                tag,
                "doctor",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode in (0, 4), ran.stderr
        assert "settings" in ran.stdout
    finally:
        subprocess.run([build[0], "rmi", "-f", tag], capture_output=True, timeout=60, check=False)
