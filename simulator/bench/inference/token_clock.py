"""A client of `bench inference`, as a process that may be in a network namespace of its own.

    python -m simulator.bench.inference.token_clock HOME HOST STAGES TOKENS ANSWERS ADDRESS

It waits until it knows all stages, makes the likeliest answers, and prints `ClockedAnswers`.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import trio

from daemon.config.settings import Config, NetworkConfig, WorkerConfig
from daemon.node.model_client import JoinedModel, joined_model
from daemon.services.inference.generation import GenerationOptions, GenerationRequest
from protocol.generation.sampler import SamplingRules

PROMPT = "The history of the railway begins with"
KNOWN_S = 60.0
LOOK_S = 0.1


class ClockedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of the last answer, and the times between tokens of all but the first answer."""

    tokens: tuple[int, ...]
    stages: int
    gaps_s: tuple[float, ...]


async def clock(config: Config, stages: int, tokens: int, answers: int) -> ClockedAnswers:
    """Make one answer to connect with the stages, and so many that count.

    Raises:
        UserError: no stage answers.
        trio.TooSlowError: not all stages are known in time.
    """

    def refuse(reason: str, peer: str, detail: str) -> None:
        print(f"refused ({reason}) from {peer}: {detail}", file=sys.stderr)

    async with joined_model(config, "", refuse) as joined:
        with trio.fail_after(KNOWN_S):
            while len(joined.client.choice.holders()) < stages:
                await trio.sleep(LOOK_S)
        gaps_s: list[float] = []
        made: tuple[int, ...] = ()
        for number in range(answers + 1):
            made, peers, times_s = await _answer(joined, tokens)
            if number:
                gaps_s += [later - earlier for earlier, later in pairwise(times_s)]
        return ClockedAnswers(tokens=made, stages=peers, gaps_s=tuple(gaps_s))


async def _answer(joined: JoinedModel, tokens: int) -> tuple[tuple[int, ...], int, list[float]]:
    request = GenerationRequest(
        prompt=tuple(joined.tokenizer.encode(PROMPT)),
        max_tokens=tokens,
        rules=SamplingRules(temperature=0.0),
    )
    times_s: list[float] = []
    options = GenerationOptions(audit_share=0.0)
    async with joined.client.generation(request, options) as generation:
        while await generation.next_token() is not None:
            times_s.append(time.monotonic())
        return tuple(generation.tokens), len(generation.peers), times_s


def main() -> None:
    home, host, stages, tokens, answers, address = sys.argv[1:]
    config = Config(
        home=Path(home),
        network=NetworkConfig(listen_host=host, join=(address,), upnp=False, mdns=False),
        worker=WorkerConfig(device="cpu"),
    )
    found = trio.run(clock, config, int(stages), int(tokens), int(answers))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
