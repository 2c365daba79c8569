"""A story of serving: what happens during an answer, and what must come of it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec
import trio

from daemon.services.inference.client import USUAL, InferenceClient
from daemon.services.inference.generation import Generation, GenerationOptions, GenerationRequest
from daemon.services.inference.hop_calls import DETECTION_S
from protocol.inference.recovery_events import GenerationEvent, HopWasLost
from simulator.inference.stage_world import (
    InferenceWorld,
    Node,
    expected_tokens,
    inference_world,
    request,
)

LAYERS = 6
RANGES = ((0, 2), (2, 4), (4, 6))
TOKENS = 40
LAYER_S = 0.002
"""One token in one layer, so that a kill can meet a step under way."""

SETTLE_S = 35.0
"""After this time, the lease of a generation that nobody closed has ended too."""


class InferenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a story. Times are virtual seconds."""

    story: str
    seed: int
    # "" where everything was as it must be.
    failure: str
    tokens: int
    replays: int
    exact: bool
    # Each loss that the client noticed, in order: "broken", "slow" and so on.
    losses: tuple[str, ...]
    # The longest time between two tokens.
    gap_s: float
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.failure


class Failed(Exception):
    """The outcome is not what the story wants. The message says how it differs."""


class Play:
    """One story under way."""

    def __init__(self, name: str, seed: int, world: InferenceWorld) -> None:
        self.name, self.seed, self.world = name, seed, world
        self.rng = random.Random(f"{seed} {name}")
        self.events: list[GenerationEvent] = []
        self.tokens = self.replays = 0
        self.exact = True
        self._times_s: list[float] = []

    def add_twice(self) -> None:
        """Start three ranges with two holders each."""
        for first, stop in RANGES:
            for _ in range(2):
                self.world.add(first, stop, layer_s=LAYER_S)

    def holder(self, generation: Generation, place: int) -> Node:
        """Return the node of the chain's hop `place`."""
        peer = generation.peers[place]
        return next(node for node in self.world.nodes if node.peer == peer)

    async def answer(
        self,
        client: InferenceClient,
        at: Callable[[int, Generation], None] = lambda _count, _generation: None,
        *,
        wanted: GenerationRequest | None = None,
        options: GenerationOptions = USUAL,
    ) -> Generation:
        """Generate to the end, and check every token. `at` is called before each one.

        Raises `Failed`.
        """
        wanted = wanted or request(tokens=TOKENS)
        async with client.generation(wanted, options, self.events.append) as generation:
            self._times_s = [trio.current_time()]
            at(0, generation)
            while await generation.next_token() is not None:
                self._times_s.append(trio.current_time())
                at(len(generation.tokens), generation)
            await generation.audit()
        self.tokens += len(generation.tokens)
        self.replays += generation.replays
        self.exact = self.exact and generation.exact
        if generation.exact and generation.tokens != await expected_tokens(wanted):
            raise Failed("the tokens are not those of one process")
        return generation

    def check(self, holds: bool, failure: str) -> None:
        """Raise `Failed` unless the condition holds."""
        if not holds:
            raise Failed(failure)

    @property
    def losses(self) -> tuple[str, ...]:
        return tuple(event.kind for event in self.events if isinstance(event, HopWasLost))

    @property
    def gap_s(self) -> float:
        """The longest time between two tokens of the last answer, the first one aside."""
        return max((later - now for now, later in pairwise(self._times_s[1:])), default=0.0)

    def check_gap(self, replayed_tokens: int) -> None:
        """Check that the gap is at most the detection, a replay, and some round trips."""
        most_s = DETECTION_S + 6 * LAYER_S * replayed_tokens + 1.0
        self.check(self.gap_s <= most_s, f"{self.gap_s:.2f} s without a token")


Act = Callable[[Play], Awaitable[None]]
"""Plays a story in its world. Raises `Failed`."""


async def play_story(name: str, seed: int, act: Act) -> InferenceReport:
    """Play one story in virtual time, and see that no cache is left at its end."""
    began_s = trio.current_time()
    failure = ""
    async with inference_world() as world:
        play = Play(name, seed, world)
        try:
            await act(play)
            await trio.sleep(SETTLE_S)
            left = sum(node.stage.open_generations for node in world.nodes if node.alive)
            play.check(not left, f"{left} caches leaked")
        except Failed as failed:
            failure = str(failed)
        return InferenceReport(
            story=name,
            seed=seed,
            failure=failure,
            tokens=play.tokens,
            replays=play.replays,
            exact=play.exact,
            losses=play.losses,
            gap_s=play.gap_s,
            seconds=trio.current_time() - began_s,
        )
