"""`bench`: how HyperGPU does, measured on real processes on this machine."""

from __future__ import annotations

import click

from daemon.cli.invocation import global_options, invocation
from simulator.harness.steps import KINDS, STEPS


@click.group()
def bench() -> None:
    """Measure this version on real processes on this machine."""


@bench.command()
@click.option("--kind", type=click.Choice(KINDS), help="What happens to the victim. Default: both.")
@click.option("--step", type=click.Choice(STEPS), help="Where in the round. Default: everywhere.")
@click.option("--engines", default="native", show_default=True, metavar="NAMES", help="Which engines, with commas between.")
@click.option("--runs", type=click.IntRange(1, 1000), default=10, show_default=True, help="How often each.")
@click.option("--elements", type=click.IntRange(1 << 14, 1 << 28), default=1_000_000, show_default=True, help="Of the model, float32.")
@global_options(hidden=True)
@click.pass_context
def faults(context: click.Context, kind: str | None, step: str | None, engines: str, runs: int, elements: int) -> int:
    """Kill or stop one of four members in mid-round; compare and recompute what the others hold. Fails when anything was wrong."""
    import msgspec  # noqa: PLC0415

    from simulator.bench import faults as measuring  # noqa: PLC0415  # the whole node, for this command alone

    call = invocation(context)
    records = measuring.bench_faults(
        kinds=[one for one in KINDS if kind in (None, one)],
        steps=[one for one in STEPS if step in (None, one)],
        engines=[name.strip() for name in engines.split(",")],
        runs=runs,
        elements=elements,
        say=call.say,
    )
    call.result(msgspec.json.encode(records).decode() if call.as_json else measuring.table(records))
    return 0 if all(record.perfect for record in records) else 1


@bench.command()
@click.option("--elements", type=click.IntRange(1, 1 << 28), default=10_000_000, show_default=True, help="Of the vector, float32.")
@click.option("--repeat", type=click.IntRange(1, 1000), default=5, show_default=True, help="How often each; the median counts.")
@click.option("--device", metavar="NAME", help="Also the encoders on this device of torch: cuda, cuda:1, cpu.")
@global_options(hidden=True)
@click.pass_context
def codecs(context: click.Context, elements: int, repeat: int, device: str | None) -> None:
    """Time each codec on one core, compiled and in numpy, and what it loses."""
    import msgspec  # noqa: PLC0415

    from protocol.codec import implementation  # noqa: PLC0415
    from simulator.bench import codecs as measuring  # noqa: PLC0415

    call = invocation(context)
    call.say(f"codecs: {implementation()}")
    records = measuring.bench_codecs(elements, repeat, device)
    call.result(msgspec.json.encode(records).decode() if call.as_json else measuring.table(records))
