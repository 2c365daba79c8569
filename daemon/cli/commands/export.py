"""`export`: the model of a run of this home as a safetensors file.

Only reads the home; works beside a daemon and without one.
"""

from __future__ import annotations

import click
import msgspec

from daemon.cli.invocation import global_options, invocation
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
@click.option("--force", is_flag=True, help="Write over FILE where it exists.")
@global_options(hidden=True)
@click.pass_context
def export(context: click.Context, words: tuple[str, ...], force: bool) -> None:
    """Write a run's newest model to FILE, in the format safetensors.

    RUN is the beginning of a run's id. Default: the run that this home was in last. Reads runs of
    all rules.
    """
    if not 1 <= len(words) <= 2:
        raise UserError(
            "USAGE",
            f"export takes a file, or a run and a file; {len(words)} words were given.",
            fix="hypergpud export model.safetensors",
            exit_code=2,
        )
    from daemon.export import export_run  # noqa: PLC0415  # numpy and the protocol, which a mistake in the options does not pay
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415

    talk = invocation(context)
    file = user_path(words[-1], "FILE")
    signed = chosen_run(talk.home, words[0] if words[1:] else None)
    written = export_run(talk.home, signed, file, force=force, say=talk.say)
    rules = signed.open().rules
    if talk.as_json:
        answer = ExportResult(
            file=str(file),
            run=signed.run.hex(),
            rules=rules,
            round=written.number,
            parameters=int(written.anchor.size),
        )
        talk.result(msgspec.json.encode(answer).decode())
        return
    talk.result(
        f"Wrote {file}: {written.anchor.size:,} parameters of the run {signed.open().name} ({signed.run.hex()[:12]}, rules {rules}),"
        f" as certificate {written.number} left them."
        if written.number
        else f"Wrote {file}: {written.anchor.size:,} parameters of the run {signed.open().name}, in which no round is certified yet."
    )
