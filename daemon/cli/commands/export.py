"""`export`: writes a model of a run, as safetensors, for torch, or for transformers.

It only reads the home, whether a daemon runs there or not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.cli.model_options import model_config, model_options
from daemon.config.settings import Config
from daemon.home.layout import user_path
from daemon.results.model_choice import ModelChoice
from protocol.errors import UserError

if TYPE_CHECKING:
    # numpy and the protocol take a while; a mistake in the options does not wait for them.
    from daemon.results.run_model import RunModel

Form = Literal["safetensors", "torch", "hf"]


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `export --json` prints."""

    file: str
    run: str
    rules: int
    round: int
    parameters: int


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "torch", "hf"]),
    default="safetensors",
    show_default=True,
    help="safetensors: the trained tensors; torch: the whole state_dict; hf: a folder for"
    " transformers, with the adapter merged.",
)
@click.option("--adapter", is_flag=True, help="With --format hf: the LoRA adapter alone.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@model_options
@global_options(hidden=True)
@click.pass_context
def export(
    context: click.Context,
    words: tuple[str, ...],
    form: Form,
    adapter: bool,
    force: bool,
    certificate: str | None,
    join: tuple[str, ...],
    device: str | None,
    allow_custom_task: bool,
) -> None:
    """Write the newest model of a run to a file.

    RUN is the beginning of a run's id. Default: the run that this home was in last. Runs of all
    versions of the rules can be exported as safetensors from a home, without the task's code. The
    other formats, and a swarm's model, need the task, which runs in a worker.
    """
    if not 1 <= len(words) <= 2:
        raise UserError(
            "USAGE",
            f"export takes FILE, or RUN and FILE; it got {len(words)} arguments.",
            fix="hypergpud export model.safetensors",
            exit_code=2,
        )
    if adapter and form != "hf":
        raise click.UsageError("--adapter needs --format hf.")
    invocation = invocation_of(context)
    file = user_path(words[-1], "FILE")
    config = model_config(invocation, device, allow_custom_task)
    choice = ModelChoice(run=words[0] if words[1:] else None, certificate=certificate, join=join)
    model = _export(config, choice, file, form, adapter=adapter, force=force, say=invocation.say)
    manifest, run = model.signed.open(), model.signed.run.hex()
    if invocation.as_json:
        result = ExportResult(
            file=str(file),
            run=run,
            rules=manifest.rules,
            round=model.number,
            parameters=int(model.parameters.size),
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    of_run = f"the run {manifest.name} ({run[:12]}, rules {manifest.rules})"
    invocation.result(
        f"Wrote {file}: {model.parameters.size:,} parameters of {of_run}"
        + (f", as of round {model.number}." if model.number else ", before its first round.")
    )


def _export(
    config: Config,
    choice: ModelChoice,
    target: Path,
    form: Form,
    *,
    adapter: bool,
    force: bool,
    say: Callable[[str], None],
) -> RunModel:
    # Late imports, as in `export`.
    import trio  # noqa: PLC0415

    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from daemon.results.export import (  # noqa: PLC0415
        check_target,
        export_by_task,
        export_safetensors,
    )
    from daemon.results.run_model import model_of_home  # noqa: PLC0415

    check_target(target, force=force, is_folder=form == "hf")
    if form == "safetensors" and not choice.join:
        signed = chosen_run(config.home, choice.run)
        model = model_of_home(config.home, signed, choice.certificate, say)
        export_safetensors(model, target, force=force)
        return model

    async def use_task() -> RunModel:
        from daemon.results.opened_model import opened_model  # noqa: PLC0415

        async with opened_model(config, choice, say) as opened:
            if form == "safetensors":
                shapes = tuple((spec.name, spec.shape) for spec in opened.info.specs)
                model = msgspec.structs.replace(opened.model, shapes=shapes)
                export_safetensors(model, target, force=force)
            else:
                await export_by_task(opened, target, form=form, adapter=adapter, force=force)
        return opened.model

    return trio.run(use_task)
