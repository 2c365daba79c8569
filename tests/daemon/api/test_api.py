"""Tests the API with the official OpenAI client, on real sockets."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import trio

from daemon.api.answers import MAX_OPEN
from daemon.models.text_tokens import ByteTokenizer
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import ChatMessage
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from tests.daemon.api.local_generations import KEY, LocalGenerations, calling, client, served

pytestmark = pytest.mark.real

WHOLE = LayerRange(first=0, stop=FAKE_MODEL.layers)


class ChatTokenizer(ByteTokenizer):
    """Bytes, with a template."""

    def chat(self, messages: Any) -> str:
        return "".join(f"<{one.role}>{one.content}\n" for one in messages)


def generations(cache_tokens: int = 1 << 20, model: ModelManifest = FAKE_MODEL) -> LocalGenerations:
    return LocalGenerations(FakeStage(WHOLE, cache_tokens, model=model), model)


async def test_completion_has_the_text_and_the_usage() -> None:
    async with served(generations(), FAKE_MODEL) as url:

        def ask(**more: Any) -> Any:
            return client(url).completions.create(
                model="fake", prompt="abc", max_tokens=12, seed=7, **more
            )

        first, again = await calling(ask), await calling(ask)
        other = await calling(lambda: ask(temperature=0))
    assert first.choices[0].text == again.choices[0].text != other.choices[0].text
    assert first.choices[0].finish_reason == "length"
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (3, 12)
    assert first.usage.total_tokens == 15
    assert first.hypergpu == {"exact": True, "replays": 0}


async def test_stream_has_the_text_of_the_whole_answer() -> None:
    async with served(generations(), FAKE_MODEL, ChatTokenizer()) as url:

        def whole() -> Any:
            return client(url).chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "hi"}], max_tokens=40, seed=3
            )

        def streamed() -> list[Any]:
            return list(
                client(url).chat.completions.create(
                    model="fake",
                    messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
                    max_completion_tokens=40,
                    seed=3,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )

        expected, parts = await calling(whole), await calling(streamed)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == expected.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-2].choices[0].finish_reason == "length"
    assert (parts[-1].choices, parts[-1].usage) == ([], expected.usage)


async def test_stop_sequence_ends_the_text() -> None:
    async with served(generations(), FAKE_MODEL) as url:

        def ask(stop: Any) -> Any:
            return client(url).completions.create(
                model="fake", prompt="abc", max_tokens=60, seed=1, stop=stop
            )

        whole = (await calling(lambda: ask(None))).choices[0].text
        stop = whole[5:7]
        ended = (await calling(lambda: ask([stop]))).choices[0]
    assert ended.text == whole[: whole.find(stop)]
    assert ended.finish_reason == "stop"


async def test_models_are_listed() -> None:
    async with served(generations(), FAKE_MODEL) as url:
        listed = await calling(lambda: list(client(url).models.list()))
        one = await calling(lambda: client(url).models.retrieve("fake"))
        with pytest.raises(openai.NotFoundError):
            await calling(lambda: client(url).models.retrieve("other"))
    assert [model.id for model in listed] == [one.id] == ["fake"]


async def test_wrong_key_and_wrong_requests_are_refused() -> None:
    begun = generations()
    async with served(begun, FAKE_MODEL) as url:
        stranger = openai.OpenAI(base_url=url, api_key="other", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            await calling(stranger.models.list)

        def ask(**fields: Any) -> Any:
            fields = {"model": "fake", "prompt": "a", "max_tokens": 2, **fields}
            return client(url).completions.create(**fields)

        for fields in (
            {"temperature": 9.0},
            {"temperature": "hot"},
            {"top_p": 2},
            {"max_tokens": 0},
            {"n": 2},
            {"logprobs": 3},
            {"presence_penalty": 1.0},
            {"stop": [""]},
            {"stop": ["a"] * 5},
            {"prompt": ["a", "b"]},
            {"prompt": [FAKE_MODEL.vocabulary]},
            {"prompt": "a" * (FAKE_MODEL.context + 1)},
        ):
            with pytest.raises(openai.BadRequestError):
                await calling(lambda fields=fields: ask(**fields))
        with pytest.raises(openai.NotFoundError, match="not served"):
            await calling(lambda: ask(model="gpt-4"))
        # A model without a template has no chats.
        with pytest.raises(openai.BadRequestError, match="template"):
            await calling(
                lambda: client(url).chat.completions.create(
                    model="fake", messages=[{"role": "user", "content": "a"}]
                )
            )
        for value in ({"top_p": 0}, {"n": 1}, {"logprobs": None}, {"prompt": [97, 98]}):
            assert (await calling(lambda value=value: ask(**value))).choices
    assert begun.begun == 4


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", b"", 400),
        ("POST", "/v1/completions", b"[1", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b'{"model": "fake", "prompt": {"a": 1}}', 400),
        ("POST", "/v1/completions", b"[" * 5_000, 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b'{"a":' * 100_000, 400),
        ("POST", "/v1/completions", b" " * (2 << 20), 413),
        ("GET", "/v1/completions", b"", 405),
        ("POST", "/v1/models", b"{}", 405),
        ("GET", "/v2", b"", 404),
    ],
)
async def test_garbage_gets_a_sentence(method: str, path: str, body: bytes, status: int) -> None:
    def ask(port: int) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, body, {"Authorization": f"Bearer {KEY}"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    async with served(generations(), FAKE_MODEL) as url:
        port = urlsplit(url).port
        assert port is not None
        found, reply = await calling(lambda: ask(port))
    assert found == status
    assert reply["error"]["message"].endswith(".")


async def test_fifty_generations_at_once_and_a_hundred_more_are_refused() -> None:
    """The fifty hold until all others were refused, and then end with the text they would have."""
    gate, refused = trio.Event(), []
    texts: list[str] = []
    lock = threading.Lock()

    def ask(one: openai.OpenAI, number: int) -> None:
        try:
            found = one.completions.create(
                model="fake", prompt=f"prompt {number}", max_tokens=8, seed=5
            )
        except openai.RateLimitError as error:
            with lock:
                refused.append(error.response.headers["Retry-After"])
        else:
            with lock:
                texts.append(found.choices[0].text)

    stage = HeldStage(WHOLE, 1 << 20, gate=gate)
    made = LocalGenerations(stage, FAKE_MODEL)
    limiter = trio.CapacityLimiter(200)
    async with served(made, FAKE_MODEL) as url, trio.open_nursery() as nursery:
        one = client(url)
        for number in range(150):
            nursery.start_soon(
                lambda number=number: trio.to_thread.run_sync(
                    ask, one, number, limiter=limiter, abandon_on_cancel=True
                )
            )
        while len(refused) < 100:
            await trio.sleep(0.01)
        assert made.open == MAX_OPEN
        gate.set()
    assert (len(texts), len(refused), set(refused)) == (MAX_OPEN, 100, {"1"})
    assert (made.open, stage.open_generations) == (0, 0)


class HeldStage(FakeStage):
    """A stage that computes nothing before the gate opens."""

    def __init__(self, layers: LayerRange, cache_tokens: int, *, gate: trio.Event) -> None:
        super().__init__(layers, cache_tokens)
        self._gate = gate

    async def step(self, generation: bytes, position: int, chunk: Any) -> Any:
        await self._gate.wait()
        return await super().step(generation, position, chunk)


async def test_client_that_leaves_frees_its_cache() -> None:
    stage = FakeStage(WHOLE, 1 << 20, layer_s=0.005)
    made = LocalGenerations(stage, FAKE_MODEL)
    async with served(made, FAKE_MODEL) as url:

        def leave_early(stream: bool) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=10)
            body = {"model": "fake", "prompt": "abc", "max_tokens": 4000, "stream": stream}
            headers = {"Authorization": f"Bearer {KEY}"}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            if stream:
                connection.getresponse().read(10)
            connection.close()

        await calling(lambda: leave_early(True))
        await calling(lambda: leave_early(False))
        while made.begun < 2 or made.open:
            await trio.sleep(0.01)
        assert stage.open_generations == 0


async def test_full_stages_are_a_429_and_no_cache_leaks() -> None:
    made = generations(cache_tokens=40)
    async with served(made, FAKE_MODEL) as url:

        def ask(tokens: int) -> Any:
            return client(url).completions.create(model="fake", prompt="abc", max_tokens=tokens)

        with pytest.raises(openai.RateLimitError, match="40 are free"):
            await calling(lambda: ask(100))
        assert (await calling(lambda: ask(10))).choices
    assert made.open == 0


async def test_stream_has_heartbeats_while_no_token_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.api.handlers.HEARTBEAT_S", 0.05)
    gate = trio.Event()
    made = LocalGenerations(HeldStage(WHOLE, 1 << 20, gate=gate), FAKE_MODEL)
    async with served(made, FAKE_MODEL) as url:
        lines: list[bytes] = []

        def read() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=30)
            body = {"model": "fake", "prompt": "abc", "max_tokens": 3, "stream": True, "seed": 1}
            headers = {"Authorization": f"Bearer {KEY}"}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            lines.extend(iter(connection.getresponse().readline, b""))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(calling, read)
            while made.open == 0:
                await trio.sleep(0.01)
            await trio.sleep(0.3)
            gate.set()
    assert sum(line.startswith(b": ") for line in lines) >= 2
    assert lines[-2] == b"data: [DONE]\n"


async def test_error_in_the_middle_of_a_stream_reaches_the_client() -> None:
    class Failing(FakeStage):
        async def step(self, generation: bytes, position: int, chunk: Any) -> Any:
            if position > 20:
                raise UserError("NO_STAGE", "Nobody serves the layers 2:4.", fix="hypergpud serve")
            return await super().step(generation, position, chunk)

    made = LocalGenerations(Failing(WHOLE, 1 << 20), FAKE_MODEL)
    async with served(made, FAKE_MODEL, ChatTokenizer()) as url:

        def stream() -> None:
            messages = [{"role": "user", "content": "abc"}]
            for _ in client(url).chat.completions.create(
                model="fake", messages=messages, max_tokens=90, stream=True
            ):
                pass

        with pytest.raises(openai.APIError, match="2:4"):
            await calling(stream)
    assert made.open == 0


async def test_port_in_use_says_what_to_type() -> None:
    async with served(generations(), FAKE_MODEL) as url:
        from daemon.api.api_server import listen  # noqa: PLC0415

        with pytest.raises(UserError, match="--port 0"):
            listen("127.0.0.1", urlsplit(url).port or 0)


def test_chat_message_of_the_port_is_what_templates_get() -> None:
    text = ChatTokenizer().chat([ChatMessage(role="system", content="x")])
    assert text == "<system>x\n"
