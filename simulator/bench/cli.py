"""The commands of `hypergpud bench`."""

from __future__ import annotations

import click

from daemon.cli.arguments import NAMES, FiniteRange
from daemon.cli.command_group import CommandGroup
from daemon.cli.invocation import global_options, invocation_of
from simulator.bench.inference.command import inference, stage_audits
from simulator.bench.training.command import training
from simulator.bench.worker.command import worker
from simulator.harness.steps import KINDS, STEPS


@click.group(cls=CommandGroup)
def bench() -> None:
    """Measure this version with real processes on this machine."""


bench.add_command(training)
bench.add_command(inference)
bench.add_command(worker)
bench.add_command(stage_audits)


@bench.command()
@click.option("--kind", type=click.Choice(KINDS), help="The fault. Default: both.")
@click.option("--step", type=click.Choice(STEPS), help="The step of the round. Default: all.")
@click.option(
    "--engines",
    type=NAMES,
    default="native",
    show_default=True,
    metavar="NAMES",
    help="The engines, separated by commas.",
)
@click.option(
    "--runs",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Trials of each combination.",
)
@click.option(
    "--elements",
    type=click.IntRange(1 << 14, 1 << 28),
    default=1_000_000,
    show_default=True,
    help="Size of the model, in float32 values.",
)
@global_options(hidden=True)
@click.pass_context
def faults(
    context: click.Context,
    kind: str | None,
    step: str | None,
    engines: tuple[str, ...],
    runs: int,
    elements: int,
) -> int:
    """Kill or stop one of four members in mid-round, and check what the others hold.

    Fails when a result of the native engine was wrong or late. What hivemind makes of the same
    faults is a finding, not a failure.
    """
    import msgspec  # noqa: PLC0415

    from simulator.bench import faults as measurement  # noqa: PLC0415
    from simulator.bench.fault_record import table  # noqa: PLC0415

    call = invocation_of(context)
    records = measurement.bench_faults(
        kinds=[one for one in KINDS if kind in (None, one)],
        steps=[one for one in STEPS if step in (None, one)],
        engines=list(engines),
        runs=runs,
        elements=elements,
        say=call.say,
    )
    call.result(msgspec.json.encode(records).decode() if call.as_json else table(records))
    return (
        0
        if all(record.perfect and record.in_time for record in records if record.engine == "native")
        else 1
    )


@bench.command()
@click.option(
    "--peers",
    type=click.IntRange(2, 16),
    default=4,
    show_default=True,
    help="Peer processes for each engine and codec.",
)
@click.option(
    "--elements",
    type=click.IntRange(1 << 12, 1 << 28),
    default=10_000_000,
    show_default=True,
    help="Size of the vector, in float32 values.",
)
@click.option(
    "--codecs",
    type=NAMES,
    default="float32,bfloat16,float16,int8,int4",
    show_default=True,
    metavar="NAMES",
)
@click.option(
    "--engines", type=NAMES, default="native,hivemind,gloo", show_default=True, metavar="NAMES"
)
@click.option(
    "--rate",
    default="none",
    show_default=True,
    metavar="RATE",
    help="Each peer's link: 100mbit, 100mbit/20mbit (down/up), or none. Needs root unless none.",
)
@click.option(
    "--rtt",
    type=FiniteRange(0.0, 1000.0),
    default=0.0,
    show_default=True,
    help="Round trip between any two peers, in milliseconds. Needs root.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="Rounds of each combination, interleaved.",
)
@click.option(
    "--certified/--no-certified",
    default=True,
    show_default=True,
    help="Also play whole certified rounds of the native engine.",
)
@global_options(hidden=True)
@click.pass_context
def allreduce(
    context: click.Context,
    peers: int,
    elements: int,
    codecs: tuple[str, ...],
    engines: tuple[str, ...],
    rate: str,
    rtt: float,
    repeat: int,
    certified: bool,
) -> int:
    """Average one vector with every engine, side by side, each peer in its own process.

    Only right results count. Seconds run from the first peer that begins to the last that holds the
    mean. Fails when a result of native was wrong, and when an engine has no right round: a group
    that does not form is tried three times.
    """
    import msgspec  # noqa: PLC0415

    from simulator.bench.allreduce import benchmark  # noqa: PLC0415
    from simulator.bench.allreduce.cell_record import without_figure  # noqa: PLC0415
    from simulator.bench.allreduce.peer_hosts import parse_link_rate  # noqa: PLC0415
    from simulator.bench.allreduce.table import table  # noqa: PLC0415

    call = invocation_of(context)
    downlink_bps, uplink_bps = parse_link_rate(rate)
    records = benchmark.measure(
        peers=peers,
        elements=elements,
        codecs=codecs,
        engines=engines,
        rate_bps=uplink_bps,
        downlink_bps=downlink_bps,
        rtt_s=rtt / 1000,
        repeat=repeat,
        certified=certified,
        say=call.say,
    )
    call.result(msgspec.json.encode(records).decode() if call.as_json else table(records))
    missing = without_figure(records)
    for line in missing:
        click.echo(line, err=True)
    right = all(
        not record.wrong and record.agree for record in records if record.engine == "native"
    )
    return 0 if right and not missing else 1


@bench.command()
@click.option(
    "--elements",
    type=click.IntRange(1, 1 << 28),
    default=10_000_000,
    show_default=True,
    help="Size of the vector, in float32 values.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Repetitions; the median counts.",
)
@global_options(hidden=True)
@click.pass_context
def codecs(context: click.Context, elements: int, repeat: int) -> None:
    """Time each codec on one core, compiled and in numpy, and measure its error."""
    import msgspec  # noqa: PLC0415

    from protocol.codec import implementation  # noqa: PLC0415
    from simulator.bench import codecs as measurement  # noqa: PLC0415

    call = invocation_of(context)
    call.say(f"codecs: {implementation()}")
    records = measurement.bench_codecs(elements, repeat)
    call.result(
        msgspec.json.encode(records).decode() if call.as_json else measurement.table(records)
    )


@bench.command()
@click.option(
    "--attacks",
    type=NAMES,
    default="",
    metavar="NAMES",
    help="The attacks, separated by commas. Default: all.",
)
@click.option(
    "--attackers",
    type=click.IntRange(1, 32),
    default=2,
    show_default=True,
    help="The most attackers among the members.",
)
@click.option(
    "--members", type=click.IntRange(3, 64), default=8, show_default=True, help="Members."
)
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), default=60, show_default=True, help="Rounds."
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="Steps of a member in a round.",
)
@click.option("--unclipped", is_flag=True, help="Also play one attacker by rules 3.")
@global_options(hidden=True)
@click.pass_context
def poisoning(
    context: click.Context,
    attacks: tuple[str, ...],
    attackers: int,
    members: int,
    rounds: int,
    steps: int,
    unclipped: bool,
) -> int:
    """Train a byte GPT with attackers among its members, by weights, clip and step limit.

    All attackers vote and claim a million samples. Fails when a loss ends more than 10% above the
    honest one.
    """
    import msgspec  # noqa: PLC0415

    from simulator.bench.poisoning import benchmark  # noqa: PLC0415
    from simulator.bench.poisoning.attacks import ATTACKS  # noqa: PLC0415

    call = invocation_of(context)
    unknown = [attack for attack in attacks if attack not in ATTACKS]
    if unknown or attackers >= members:
        raise click.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(ATTACKS)}"
            if unknown
            else f"{attackers} attackers leave no honest one among {members} members",
            param_hint="--attacks" if unknown else "--attackers",
        )
    records = benchmark.bench_poisoning(
        benchmark.cases(attacks or tuple(ATTACKS), attackers, unclipped=unclipped),
        members=members,
        rounds=rounds,
        steps=steps,
        say=call.say,
    )
    call.result(msgspec.json.encode(records).decode() if call.as_json else benchmark.table(records))
    return 0 if benchmark.withstood(records) else 1


@bench.command()
@click.option(
    "--codecs", type=NAMES, default="int4,int8,float32", show_default=True, metavar="NAMES"
)
@click.option(
    "--works",
    type=NAMES,
    default="honest,half,tenth,zeros,noise,negated,stale,foreign,mean,hidden",
    show_default=True,
    metavar="NAMES",
    help="What is audited: honest work, and cheats.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 10_000),
    default=12,
    show_default=True,
    help="Rounds of four members for each task and codec.",
)
@global_options(hidden=True)
@click.pass_context
def audits(
    context: click.Context, codecs: tuple[str, ...], works: tuple[str, ...], rounds: int
) -> None:
    """Audit honest work and cheats on the shipped tasks, and count the verdicts."""
    import msgspec  # noqa: PLC0415

    from simulator.bench.audits import benchmark as measurement  # noqa: PLC0415
    from simulator.bench.audits.cases import shipped_cases  # noqa: PLC0415
    from simulator.bench.audits.works import KINDS  # noqa: PLC0415

    call = invocation_of(context)
    unknown = [work for work in works if work not in KINDS]
    if unknown:
        raise click.BadParameter(
            f"{unknown[0]!r} is none of {', '.join(KINDS)}", param_hint="--works"
        )
    rows = measurement.measure(shipped_cases(codecs, rounds), works, call.say)
    call.result(msgspec.json.encode(rows).decode() if call.as_json else measurement.table(rows))


@bench.command()
@click.option(
    "--mb",
    type=click.IntRange(10, 100_000),
    default=500,
    show_default=True,
    help="Megabytes sent in each repetition.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Repetitions; the median counts.",
)
@global_options(hidden=True)
@click.pass_context
def tls(context: click.Context, mb: int, repeat: int) -> None:
    """Time one stream between two processes: TCP, a blocking TLS socket, and a bulk stream."""
    import msgspec  # noqa: PLC0415

    from simulator.bench import tls as measurement  # noqa: PLC0415

    call = invocation_of(context)
    records = measurement.bench_tls(mb * 1_000_000, repeat)
    call.result(
        msgspec.json.encode(records).decode() if call.as_json else measurement.table(records)
    )


@bench.command()
@global_options(hidden=True)
@click.pass_context
def targets(context: click.Context) -> int:
    """Measure the targets of the first HyperGPU: speed, memory, disk, detection and growth.

    Starts ten daemons on this machine, and ends by itself after about three minutes. Fails when a
    target is missed.
    """
    import msgspec  # noqa: PLC0415

    from simulator.bench.targets import benchmark  # noqa: PLC0415
    from simulator.bench.targets.target_row import table  # noqa: PLC0415

    call = invocation_of(context)
    rows = benchmark.measure(call.say)
    call.result(msgspec.json.encode(rows).decode() if call.as_json else table(rows))
    return 0 if all(row.passed for row in rows) else 1
