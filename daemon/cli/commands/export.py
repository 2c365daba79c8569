"""`export`: writes the model of a run to a safetensors file.

It only reads the home, whether a daemon runs there or not.
"""

from __future__ import annotations

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.home.layout import user_path
from protocol.errors import UserError


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `export --json` prints."""

    file: str
    run: str
    rules: int
    round: int
    parameters: int


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] FILE")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@global_options(hidden=True)
@click.pass_context
def export(context: click.Context, words: tuple[str, ...], force: bool) -> None:
    """Write the newest model of a run to a safetensors file.

    RUN is the beginning of a run's id. Default: the run that this home was in last. Runs of all
    versions of the rules can be exported.
    """
    if not 1 <= len(words) <= 2:
        raise UserError(
            "USAGE",
            f"export takes FILE, or RUN and FILE; it got {len(words)} arguments.",
            fix="hypergpud export model.safetensors",
            exit_code=2,
        )
    # numpy and the protocol take a while; a mistake in the options does not wait for them.
    from daemon.export import export_run  # noqa: PLC0415
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415

    invocation = invocation_of(context)
    file = user_path(words[-1], "FILE")
    signed = chosen_run(invocation.home, words[0] if words[1:] else None)
    written = export_run(invocation.home, signed, file, force=force, say=invocation.say)
    rules = signed.open().rules
    if invocation.as_json:
        result = ExportResult(
            file=str(file),
            run=signed.run.hex(),
            rules=rules,
            round=written.number,
            parameters=int(written.anchor.size),
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    of_run = f"the run {signed.open().name} ({signed.run.hex()[:12]}, rules {rules})"
    invocation.result(
        f"Wrote {file}: {written.anchor.size:,} parameters of {of_run}"
        + (f", as of round {written.number}." if written.number else ", before its first round.")
    )
