"""`generate`: continues a prompt with the stages of a swarm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from daemon.cli.arguments import FiniteRange
from daemon.cli.invocation import Invocation, global_options, invocation_of, is_terminal
from daemon.cli.joined_stage import joined_config
from protocol.status.figures import clean_lines

if TYPE_CHECKING:
    from daemon.node.model_client import JoinedModel
    from daemon.services.inference.generation import Generation
    from protocol.inference.recovery_events import GenerationEvent

MAX_TOKENS = 1 << 20


class GenerateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `generate --json` prints."""

    model: str
    name: str
    text: str
    tokens: tuple[int, ...]
    # "stop" or "length".
    finish: str
    # Lost stages that were replaced, and whether each replay had the bits of what it replaced.
    replays: int
    exact: bool
    stages: tuple[str, ...]


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one call."""

    prompt: str
    model: str
    tokens: int
    temperature: float
    top_p: float
    seed: int
    recovery: Literal["exact", "fast"]
    audit: bool
    wire: Literal["float32", "float16"]


@click.command()
@click.argument("prompt", metavar="PROMPT")
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="Address of a stage (repeat). Default: the stage that runs on this home, else the"
    " members of its last run.",
)
@click.option("--model", default="", metavar="NAME|ID", help="Where several models are served.")
@click.option(
    "--tokens",
    type=click.IntRange(1, MAX_TOKENS),
    default=64,
    show_default=True,
    help="The most tokens of the answer.",
)
@click.option(
    "--temperature",
    type=FiniteRange(0, 100),
    default=0.8,
    show_default=True,
    help="0 always takes the likeliest token.",
)
@click.option(
    "--top-p",
    type=FiniteRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Keep the likeliest tokens whose probabilities add up to this.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same text.",
)
@click.option(
    "--recovery",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="exact: a new stage repeats every chunk; fast: it computes them as one, and the text may"
    " differ.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Let other holders repeat every stage's work at the end. Without it, one answer in ten is"
    " audited.",
)
@click.option(
    "--wire",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="How hidden states travel; float16 takes half the bytes.",
)
@global_options(hidden=True)
@click.pass_context
def generate(
    context: click.Context,
    prompt: str,
    join: tuple[str, ...],
    model: str,
    tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    recovery: Literal["exact", "fast"],
    audit: bool,
    wire: Literal["float32", "float16"],
) -> None:
    """Continue a prompt with the stages of a swarm.

    A stage that dies is replaced by another one with the same layers, and the text stays the same.
    """
    invocation = invocation_of(context)
    config = joined_config(invocation, join, "hypergpud generate PROMPT")
    wish = _Wish(
        prompt=prompt,
        model=model,
        tokens=tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        recovery=recovery,
        audit=audit,
        wire=wire,
    )
    # These imports take a second; a wrong setting is reported before them.
    from daemon.node.app import run_trio  # noqa: PLC0415
    from daemon.node.model_client import joined_model  # noqa: PLC0415

    def refuse(reason: str, peer: str, detail: str) -> None:
        invocation.say(f"Refused what {peer} sent ({reason}): {detail}")

    async def main() -> int:
        async with joined_model(config, wish.model, refuse) as joined:
            await _generate(invocation, joined, wish)
        return 0

    run_trio(main)


async def _generate(invocation: Invocation, joined: JoinedModel, wish: _Wish) -> None:
    from daemon.services.inference.event_text import describe_event  # noqa: PLC0415
    from daemon.services.inference.generation import (  # noqa: PLC0415
        GenerationOptions,
        GenerationRequest,
    )
    from protocol.generation.sampler import SamplingRules  # noqa: PLC0415
    from protocol.generation.text_pieces import TextPieces  # noqa: PLC0415
    from protocol.inference.audit import AUDIT_SHARE  # noqa: PLC0415

    manifest, pieces = joined.manifest, TextPieces(joined.tokenizer.decode)
    prompt = joined.tokenizer.encode(wish.prompt) or [manifest.first_token]
    request = GenerationRequest(
        prompt=tuple(prompt),
        max_tokens=wish.tokens,
        rules=SamplingRules(temperature=wish.temperature, top_p=wish.top_p, seed=wish.seed),
        end_tokens=frozenset(manifest.end_tokens),
    )
    options = GenerationOptions(
        wire=wish.wire, recovery=wish.recovery, audit_share=1.0 if wish.audit else AUDIT_SHARE
    )
    # A person sees the text as it is made; a program gets it whole.
    live = not invocation.as_json and is_terminal(sys.stdout)
    text = [wish.prompt]

    def show(piece: str) -> None:
        if live:
            # The text may have been made by a stranger: no escapes for the terminal.
            print(clean_lines(piece), end="", flush=True)

    def report(event: GenerationEvent) -> None:
        if live:
            print(flush=True)
        invocation.say(describe_event(event))

    async with joined.client.generation(request, options, report) as generation:
        show(wish.prompt)
        while (token := await generation.next_token()) is not None:
            text.append(pieces.add(token))
            show(text[-1])
        await generation.audit()
        text.append(pieces.rest())
        show(text[-1] + "\n")
        _finish(invocation, joined, generation, "".join(text), live=live)


def _finish(
    invocation: Invocation, joined: JoinedModel, generation: Generation, text: str, *, live: bool
) -> None:
    if invocation.as_json:
        result = GenerateResult(
            model=joined.model.hex(),
            name=joined.manifest.name,
            text=text,
            tokens=tuple(generation.tokens),
            finish=generation.finish,
            replays=generation.replays,
            exact=generation.exact,
            stages=generation.peers,
        )
        invocation.result(msgspec.json.encode(result).decode())
        return
    if not live:
        invocation.result(text)
    if not generation.exact:
        invocation.say(
            "Inexact: a stage was replaced by one that computes other last bits, so the text may"
            " differ from that of an undisturbed answer."
        )
