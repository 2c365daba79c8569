"""The documentation agrees with the program: commands parse, links work, lists are complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from daemon.cli.main import cli
from daemon.config.settings import keys
from daemon.observer.api.resources import RESOURCES
from daemon.observer.endpoints import ENDPOINTS, PROBES
from daemon.observer.metrics import metrics_text
from protocol.run.manifest import Manifest
from protocol.settlement.rules import Settlement
from protocol.status.state import StatusState
from protocol.status.status_record import status_at
from tests.docs.pages import PAGES, REPOSITORY, blocks, headings

ENVIRONMENT = re.compile(r"\w+=\S+")


def hypergpud_lines(page: Path) -> Iterator[tuple[int, list[str]]]:
    for block in blocks(page):
        if block.language != "sh":
            continue
        for command in block.commands:
            words = shlex.split(command)
            while words and ENVIRONMENT.fullmatch(words[0]):
                words = words[1:]
            if words and words[0] == "hypergpud":
                yield block.line, words[1:]


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Read `words` as the command line does, and run nothing."""
    name = command.name or "hypergpud"
    if not isinstance(command, click.Group):
        command.make_context(name, list(words), parent=parent, resilient_parsing=True)
        return
    context = click.Context(command, info_name=name, parent=parent)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest:
        _, chosen, words = command.resolve_command(context, rest)
        assert chosen is not None, f"no command {rest[0]}"
        parse(chosen, words, context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_parses(page: Path) -> None:
    for line, words in hypergpud_lines(page):
        try:
            parse(cli, words)
        except click.ClickException as error:
            pytest.fail(f"{page.name}:{line}: hypergpud {' '.join(words)}: {error.message}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in headings(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = [
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("protocol", "daemon", "contracts", "simulator", "tests", "configs")
        for path in (REPOSITORY / folder).rglob("*")
    ] + ["hypergpu.py"]
    # A page may define files of its own, and a path may leave out the folders above it.
    own = {block.options["file"] for block in blocks(page) if "file" in block.options}
    named = re.findall(r"`([\w/]+\.py|(?:protocol|daemon|simulator|contracts|tests)/[\w/]+)`", text)
    for name in {name.rstrip("/") for name in named} - own:
        assert any(f"/{path}".endswith((f"/{name}", f"/{name}.py")) for path in code), (
            f"{page.name} names {name}"
        )


def test_operate_names_every_endpoint() -> None:
    text = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")
    paths = [endpoint.path for endpoint in (*ENDPOINTS, *RESOURCES)] + list(PROBES)
    assert not [path for path in paths if f"`{path}`" not in text]


def test_operate_names_metrics_that_exist_and_those_of_the_disk() -> None:
    text = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(hypergpu_\w+)`", text))
    exported = metrics_text(status_at(StatusState(), 0.0)).decode()
    existing = set(re.findall(r"^(hypergpu_\w+)", exported, re.MULTILINE))
    assert named <= existing
    assert {name for name in existing if name.startswith("hypergpu_disk_")} <= named


def fields(record: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(record)]


def test_run_a_run_names_every_field_of_the_manifest() -> None:
    text = (REPOSITORY / "docs" / "run-a-run.md").read_text(encoding="utf-8")
    names = fields(Manifest)
    for section in ("inner", "outer", "round", "group", "limits"):
        default = next(f for f in msgspec.structs.fields(Manifest) if f.name == section).default
        names += fields(type(default))
    names += [name for name in fields(Settlement) if name != "rules"]
    missing = [name for name in names if not re.search(rf"[`\[.]{name}[`\]]", text)]
    assert not missing


def test_operate_names_every_setting() -> None:
    text = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")
    assert not [f"{s}.{k}" for s, k, _ in keys() if f"`{s}.{k}`" not in text]
