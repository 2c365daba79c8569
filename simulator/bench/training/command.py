"""The command `hypergpud bench training`."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import NAMES, FiniteRange
from daemon.cli.invocation import global_options, invocation_of


@click.command()
@click.option(
    "--arms",
    type=NAMES,
    default="alone,gloo,native,hivemind-a,hivemind-b",
    show_default=True,
    metavar="NAMES",
    help="The systems. alone is one process and sets the target; gloo is the ideal.",
)
@click.option(
    "--size",
    type=click.Choice(("0.4m", "5m", "20m")),
    default="0.4m",
    show_default=True,
    help="Parameters of the byte GPT.",
)
@click.option("--peers", type=click.IntRange(2, 16), default=4, show_default=True)
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option(
    "--seconds",
    type=FiniteRange(1.0, 86400.0),
    default=100.0,
    show_default=True,
    help="How long each run trains.",
)
@click.option(
    "--step-s",
    type=FiniteRange(0.001, 60.0),
    help="The pace: what a step takes at least. Default: by size.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, 65536), help="Samples of a step. Default: by size."
)
@click.option(
    "--rate",
    default="100mbit",
    show_default=True,
    metavar="RATE",
    help="Each peer's link: 100mbit, 100mbit/20mbit (down/up), or none. Needs root unless none.",
)
@click.option(
    "--rtt",
    type=FiniteRange(0.0, 1000.0),
    help="Round trip between any two peers, in milliseconds. Default: 30, and 0 without a rate.",
)
@click.option(
    "--target", type=FiniteRange(0.0, 100.0), help="The held-out loss to reach. Default: alone's."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="ARM:KEY=VALUE",
    help="Change a setting of an arm, such as native:outer.momentum=0 or gloo:learning_rate=1e-3.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=VALUES",
    help="Run native with each of these values, such as outer.momentum=0,0.9. Repeat the option "
    "for every combination.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Plot held-out loss over time."
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep logs and journals here."
)
@global_options(hidden=True)
@click.pass_context
def training(
    context: click.Context,
    arms: tuple[str, ...],
    size: str,
    peers: int,
    seeds: int,
    seconds: float,
    step_s: float | None,
    batch_size: int | None,
    rate: str,
    rtt: float | None,
    target: float | None,
    changes: tuple[str, ...],
    sweeps: tuple[str, ...],
    plot: Path | None,
    keep: Path | None,
) -> int:
    """Train one model with every system on the same links, and compare held-out loss over time.

    Every step takes the same time in every system, so a machine with few cores can run all peers. A
    run in which more than 2% of the steps were late does not count, and the command then fails.
    """
    import msgspec  # noqa: PLC0415

    from simulator.bench.allreduce.peer_hosts import parse_link_rate  # noqa: PLC0415
    from simulator.bench.training.conductor import measure  # noqa: PLC0415
    from simulator.bench.training.loss_plot import plot_losses  # noqa: PLC0415
    from simulator.bench.training.model_size import SIZES  # noqa: PLC0415
    from simulator.bench.training.plan import TrainingPlan, variants_of  # noqa: PLC0415
    from simulator.bench.training.table import table  # noqa: PLC0415
    from simulator.playback.figure import check_matplotlib  # noqa: PLC0415

    if plot is not None:
        check_matplotlib()
    shaped = parse_link_rate(rate) != (None, None)
    model = SIZES[size]
    plan = TrainingPlan(
        variants=variants_of(arms, changes, sweeps),
        size=size,
        peers=peers,
        seeds=seeds,
        seconds=seconds,
        step_s=model.step_s if step_s is None else step_s,
        batch_size=model.batch_size if batch_size is None else batch_size,
        rate=rate,
        rtt_ms=(30.0 if shaped else 0.0) if rtt is None else rtt,
    )
    call = invocation_of(context)
    records = measure(plan, call.say, target=target, keep=keep)
    call.result(msgspec.json.encode(records).decode() if call.as_json else table(records))
    if plot is not None:
        plot_losses(records, plot)
    return 1 if any(record.void for record in records) else 0
