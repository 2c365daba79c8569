"""The command `hypergpud bench worker`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import FiniteRange
from daemon.cli.invocation import global_options, invocation_of


@click.command()
@click.option(
    "--run",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The run's file, with AdamW. Default: the byte GPT that comes with HyperGPU.",
)
@click.option(
    "--turns", type=click.IntRange(1, 1000), default=5, show_default=True, help="Pairs of turns."
)
@click.option(
    "--seconds",
    type=FiniteRange(0.1, 3600.0),
    default=5.0,
    show_default=True,
    help="About how long a turn takes.",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads; 0 chooses.")
@click.option(
    "--allow-custom-task", is_flag=True, help="Run the code that the run names as module:Class."
)
@global_options(hidden=True)
@click.pass_context
def worker(
    context: click.Context,
    file: Path | None,
    turns: int,
    seconds: float,
    threads: int,
    allow_custom_task: bool,
) -> int:
    """Measure what the worker costs beside plain torch: the same steps on the CPU, in turn.

    Fails where the worker makes fewer than 97% of the samples a second (median of the pairs).
    """
    import msgspec  # noqa: PLC0415

    from daemon.device.settings import WorkerSettings  # noqa: PLC0415
    from protocol.run.manifest import Inner  # noqa: PLC0415
    from protocol.run.manifest_file import load_manifest  # noqa: PLC0415
    from simulator.bench.training.plan import DEFAULT_RUN  # noqa: PLC0415
    from simulator.bench.worker.benchmark import measure  # noqa: PLC0415

    call = invocation_of(context)
    settings = WorkerSettings(threads=threads, allow_custom_task=allow_custom_task)
    manifest = load_manifest(file or DEFAULT_RUN)
    if file is None:
        # The loop of plain torch has AdamW.
        inner = Inner(batch_size=manifest.inner.batch_size)
        manifest = msgspec.structs.replace(manifest, inner=inner)
    found = measure(manifest, settings, turns=turns, seconds=seconds, say=call.say)
    call.result(msgspec.json.encode(found).decode() if call.as_json else found.sentence())
    return 0 if found.good else 1
