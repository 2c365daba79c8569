"""`evaluate`: the held-out loss of a model of a run.

It only reads the home, whether a daemon runs there or not.
"""

from __future__ import annotations

import click
import msgspec

from daemon.cli.invocation import global_options, invocation_of
from daemon.cli.model_options import model_config, model_options
from daemon.results.model_choice import ModelChoice
from protocol.status.figures import count, duration, loss


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@model_options
@global_options(hidden=True)
@click.pass_context
def evaluate(
    context: click.Context,
    run: str | None,
    certificate: str | None,
    join: tuple[str, ...],
    device: str | None,
    allow_custom_task: bool,
) -> None:
    """Score the newest model of a run on held-out data.

    RUN is the beginning of a run's id. Default: the run that this home was in last. The command
    starts a worker of its own, with the settings of `[worker]`. The samples are those that no
    member trains on.
    """
    invocation = invocation_of(context)
    config = model_config(invocation, device, allow_custom_task)
    # These imports take a while; a wrong setting is reported before them.
    import trio  # noqa: PLC0415

    from daemon.results.evaluate import ModelScore, evaluate_model  # noqa: PLC0415
    from daemon.results.opened_model import opened_model  # noqa: PLC0415

    choice = ModelChoice(run=run, certificate=certificate, join=join)

    async def score() -> ModelScore:
        async with opened_model(config, choice, invocation.say) as opened:
            return await evaluate_model(opened)

    scored = trio.run(score)
    if invocation.as_json:
        invocation.result(msgspec.json.encode(scored).decode())
        return
    metrics = "".join(f"\n  {name}  {value:.6g}" for name, value in scored.metrics.items())
    invocation.result(
        f"Held-out loss {loss(scored.loss)} of the run {scored.name} ({scored.run[:12]}) at round"
        f" {count(scored.round)}: {count(scored.samples)} samples in"
        f" {duration(scored.seconds)} on {scored.device}.{metrics}"
    )
