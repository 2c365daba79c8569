"""`evaluate`: the held-out loss of the newest model of a run.

It only reads the home, whether a daemon runs there or not.
"""

from __future__ import annotations

import os

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.config.loader import load_config
from protocol.status.figures import count, duration, loss


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@global_options(hidden=True)
@click.pass_context
def evaluate(context: click.Context, run: str | None) -> None:
    """Score the newest model of a run on held-out data.

    RUN is the beginning of a run's id. Default: the run that this home was in last. The command
    starts a worker of its own, with the settings of `[worker]`. The samples are those that no
    member trains on.
    """
    invocation = invocation_of(context)
    config, _ = load_config(invocation.home, invocation.config, {}, os.environ)
    # These imports take a while; a wrong setting is reported before them.
    import trio  # noqa: PLC0415

    from daemon.evaluate import evaluate_home  # noqa: PLC0415
    from daemon.home.recent_state import chosen_run  # noqa: PLC0415
    from daemon.services.training.worker_settings import worker_settings  # noqa: PLC0415

    signed = chosen_run(invocation.home, run)
    scored = trio.run(
        evaluate_home, invocation.home, signed, worker_settings(config.worker), invocation.say
    )
    if invocation.as_json:
        invocation.result(msgspec.json.encode(scored).decode())
        return
    metrics = "".join(f"\n  {name}  {value:.6g}" for name, value in scored.metrics.items())
    invocation.result(
        f"Held-out loss {loss(scored.loss)} of the run {scored.name} ({scored.run[:12]}) at round"
        f" {count(scored.round)}: {count(scored.samples)} samples in"
        f" {duration(scored.seconds)} on {scored.device}.{metrics}"
    )
