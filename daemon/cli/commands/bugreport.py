"""`bugreport`: packs what a developer needs, without secrets and addresses."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.home.layout import user_path
from protocol.errors import UserError
from protocol.status.figures import size


class BugReportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `bugreport --json` prints."""

    file: str
    size_bytes: int
    files: list[str]


@click.command()
@click.option("--output", "output", metavar="FILE", help="Where to write it; never overwritten.")
@global_options(hidden=True)
@click.pass_context
def bugreport(context: click.Context, output: str | None) -> None:
    """Pack log, journal, settings and findings for a bug report.

    Secrets, addresses, accounts and names are replaced by placeholders. Keys, wallets and models
    are never read. Nothing is sent: look at the file, then attach it.
    """
    invocation = invocation_of(context)
    from daemon.diagnosis.bug_report import bug_report, packed  # noqa: PLC0415
    from daemon.diagnosis.report import diagnose  # noqa: PLC0415

    name = f"hypergpu-bugreport-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    path = user_path(output, "--output") if output is not None else Path.cwd() / f"{name}.tar.gz"
    texts = bug_report(invocation.home, diagnose(invocation.home, invocation.config, os.environ))
    data = packed(texts, name)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    except OSError as error:
        raise UserError(
            "OUTPUT",
            f"Cannot write {path}.",
            why=error.strerror or str(error),
            fix="name another file: hypergpud bugreport --output FILE",
        ) from None
    if invocation.as_json:
        result = BugReportResult(file=str(path), size_bytes=len(data), files=list(texts))
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.result(
        f"Wrote {path} ({size(len(data))}). Look at it, then attach it to the report."
    )
