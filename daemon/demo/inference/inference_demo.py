"""The story of the demo of serving, and its result.

A model is served in stages, each range twice. One answer is made without a fault. Then the same
request is made again, and the stage that computes it is killed in the middle. The two texts must be
equal. A model of our own must also give the text of `hypergpud sample`.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import trio

from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.demo.inference.served_swarm import ServedSwarm, ranges_of
from daemon.demo.inference.text_client import TextClient
from daemon.demo.inference.trained_model import TrainedModel, sample_of, train_model
from daemon.demo.progress_output import PlainOutput, ProgressOutput
from daemon.demo.runner import INTERRUPTED
from daemon.demo.stop_request import StopRequest, until_signalled
from daemon.results.served_model import open_served_model
from protocol.errors import UserError

SEED = 7
TEMPERATURE, TOP_P = 0.8, 0.95
HOLDERS = 2
# The stage dies after this share of the answer's pieces.
KILL_AFTER = 0.4


class InferenceDemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `demo --inference --json` prints.

    `same_as_sample` is None for a model that our own swarm did not train.
    """

    model: str
    stages: int
    holders: int
    prompt: str
    text: str
    tokens: int
    # Which stage, and when; empty where the answer ended before the kill.
    killed: str
    replays: int
    exact: bool
    longest_gap_s: float
    undisturbed_s: float
    same: bool
    same_as_sample: bool | None

    @property
    def good(self) -> bool:
        return self.same and self.exact and self.replays > 0 and self.same_as_sample is not False


class InferenceDemo(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks the demo to show. Without `model`, the demo trains one of our own."""

    model: str
    stages: int
    prompt: str
    tokens: int


def run_inference_demo(invocation: Invocation, wanted: InferenceDemo) -> int:
    """Tell the story. Returns the exit code; no process is left by then. Raises `UserError`."""
    output = PlainOutput(invocation)
    root = Path(tempfile.mkdtemp(prefix="hypergpu-demo-"))
    with ExitStack() as stack:
        stop = stack.enter_context(until_signalled())
        try:
            result = _story(root, wanted, output, stop)
        except UserError:
            output.tell(f"The logs are kept in {root}")
            raise
        except KeyboardInterrupt:
            shutil.rmtree(root, ignore_errors=True)
            raise
    if result is None:
        shutil.rmtree(root, ignore_errors=True)
        return INTERRUPTED
    invocation.result(
        msgspec.json.encode(result).decode() if invocation.as_json else _result_text(result)
    )
    if result.good:
        shutil.rmtree(root, ignore_errors=True)
        return 0
    output.tell(f"The logs are kept in {root}")
    return 1


def _story(
    root: Path, wanted: InferenceDemo, output: ProgressOutput, stop: StopRequest
) -> InferenceDemoResult | None:
    trained: TrainedModel | None = None
    if not wanted.model:
        trained = train_model(root, output, stop)
        if trained is None:
            return None
    home = trained.home if trained else root / "reader"
    config, _ = load_config(home, None, {"worker.device": "cpu"}, {})
    model = trained.run if trained else wanted.model
    local = trio.run(open_served_model, config, model, output.tell)
    layers = local.manifest.layers
    if wanted.stages > layers:
        raise UserError(
            "LAYERS",
            f"The model cannot be split into {wanted.stages} stages.",
            why=f"it has {layers} layers",
            fix=f"--stages {layers}",
            exit_code=2,
        )
    ranges = ranges_of(layers, wanted.stages)
    # The stages have homes of their own, without the run.
    served = str(local.source) if trained else wanted.model
    with ServedSwarm(root, served, ranges, output, holders=HOLDERS) as swarm:
        client = swarm.start(stop)
        if client is None:
            return None
        result = _answers(client, swarm, wanted, trained, output)
        swarm.close()
    return None if stop.is_set() else result


def _answers(
    client: TextClient,
    swarm: ServedSwarm,
    wanted: InferenceDemo,
    trained: TrainedModel | None,
    output: ProgressOutput,
) -> InferenceDemoResult:
    """Make the answer twice, the second time with a stage that dies."""
    name = client.models()[0]
    request: dict[str, object] = {
        "model": name,
        "prompt": wanted.prompt,
        "max_tokens": wanted.tokens,
        "seed": SEED,
        "temperature": TEMPERATURE,
        "top_p": TOP_P,
    }
    output.tell("Asking for an answer.")
    pieces: list[int] = []
    undisturbed = client.answer(request, pieces.append)
    fatal = max(1, int(KILL_AFTER * len(pieces)))
    killed: list[str] = []

    def kill_once(number: int) -> None:
        if number >= fatal and not killed and (process := swarm.kill_busy()) is not None:
            killed.append(f"{process.name} was killed after piece {number} of {len(pieces)}")
            output.tell(f"{killed[0]} (kill -9).")

    output.tell("Asking for the same answer, and killing a stage that works on it.")
    disturbed = client.answer(request, kill_once)
    sample = None
    if trained is not None:
        output.tell("Asking hypergpud sample for the same text.")
        sample = sample_of(trained, wanted.prompt, undisturbed.tokens, SEED)
    return InferenceDemoResult(
        model=name,
        stages=wanted.stages,
        holders=HOLDERS,
        prompt=wanted.prompt,
        text=disturbed.text,
        tokens=disturbed.tokens,
        killed=killed[0] if killed else "",
        replays=disturbed.replays,
        exact=disturbed.exact,
        longest_gap_s=disturbed.longest_gap_s,
        undisturbed_s=undisturbed.seconds,
        same=disturbed.text == undisturbed.text,
        same_as_sample=None if sample is None else sample == undisturbed.text,
    )


def _result_text(result: InferenceDemoResult) -> str:
    lines = [
        f"{result.prompt}{result.text}",
        "",
        f"{result.tokens} tokens of {result.model} in {result.stages} stages,"
        f" {result.holders} holders each; undisturbed they took {result.undisturbed_s:.1f} s.",
    ]
    if not result.killed:
        lines.append("No stage could be killed during the answer. Ask for more --tokens.")
    elif not result.replays:
        lines.append(f"{result.killed}, and nothing had to be replayed.")
    else:
        bits = "the same bits" if result.exact else "other last bits"
        lines.append(
            f"{result.killed}. Another holder replayed its part with {bits}; the longest"
            f" wait for a token was {result.longest_gap_s:.1f} s."
        )
    lines.append(
        f"The text is {'the same' if result.same else 'NOT the same'} as without the kill."
    )
    if result.same_as_sample is not None:
        same = "the same" if result.same_as_sample else "NOT the same"
        lines.append(f"The text is {same} as that of hypergpud sample.")
    return "\n".join(lines)
