"""Several endpoints as one: failover, garbage, another chain, and no secrets in any message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from contracts.client import HttpTransport, result_of
from contracts.endpoints import REST_S, Endpoints, RpcError, RpcTransport
from contracts.secret_mask import Masker, mask_libraries, masked_url
from protocol.chain.errors import ChainUnreachable, WrongChain

SECRET_URL = "http://user:hunter2secret@127.0.0.1:9/v3/0123456789abcdef?apikey=s3cr3tkey"
SECRETS = ("hunter2secret", "0123456789abcdef", "s3cr3tkey")


class Scripted:
    """Gives the test's answers, and counts the questions."""

    def __init__(self, name: str, answer: Any) -> None:
        self.url = f"http://{name}"
        self.answer = answer
        self.asked = 0

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def nothing(_: RpcTransport) -> None:
    """Accept every endpoint."""


def endpoints(
    *transports: RpcTransport,
    check: Callable[[RpcTransport], None] = nothing,
    now: Callable[[], float] = lambda: 0.0,
) -> Endpoints:
    return Endpoints(transports, check, now)


def test_the_next_endpoint_is_used_until_the_first_has_rested() -> None:
    clock = [0.0]
    first, second = Scripted("a", ChainUnreachable("connection refused")), Scripted("b", 2)
    both = endpoints(first, second, now=lambda: clock[0])
    assert [both.ask("x"), both.ask("x")] == [2, 2]
    assert (first.asked, second.asked) == (1, 2)
    second.answer = ChainUnreachable("gone")
    first.answer = 1
    # A resting endpoint is asked if no other answers.
    assert both.ask("x") == 1
    second.answer = 2
    clock[0] = REST_S
    assert both.ask("x") == 1


def test_an_rpc_error_is_an_answer_but_a_rate_limit_is_not() -> None:
    reverted, other = (
        Scripted("a", RpcError(3, "execution reverted: pool: no", b"\1")),
        Scripted("b", 2),
    )
    with pytest.raises(RpcError, match="pool: no") as caught:
        endpoints(reverted, other).ask("x")
    assert (caught.value.data, other.asked) == (b"\1", 0)
    assert endpoints(Scripted("a", RpcError(-32005, "limit exceeded")), other).ask("x") == 2


def test_if_no_endpoint_answers_each_is_named_with_its_reason() -> None:
    with pytest.raises(ChainUnreachable, match=r"http://a: refused; http://b: timed out"):
        endpoints(
            Scripted("a", ChainUnreachable("refused")), Scripted("b", ChainUnreachable("timed out"))
        ).ask("x")


def test_an_endpoint_of_another_chain_is_refused() -> None:
    wrong, right = Scripted("wrong", 1), Scripted("right", 2)

    def check(transport: RpcTransport) -> None:
        if transport is wrong:
            raise WrongChain("expected chain 1, found chain 2")

    assert endpoints(wrong, right, check=check).ask("x") == 2
    assert wrong.asked == 0
    with pytest.raises(WrongChain, match="found chain 2"):
        endpoints(wrong, check=check).ask("x")
    # The endpoint of the right chain may come back, so the error is temporary.
    with pytest.raises(ChainUnreachable):
        endpoints(wrong, Scripted("down", ChainUnreachable("refused")), check=check).ask("x")


def test_an_endpoint_that_failed_is_checked_again_before_use() -> None:
    flaky, checks = Scripted("a", 1), []
    one = endpoints(flaky, check=checks.append)
    one.ask("x")
    one.ask("x")
    assert len(checks) == 1
    flaky.answer = ChainUnreachable("restarting")
    with pytest.raises(ChainUnreachable):
        one.ask("x")
    flaky.answer = 1
    one.ask("x")
    assert len(checks) == 2


@pytest.mark.parametrize(
    "garbage",
    [None, [], "x", 7, {}, {"result": 1, "error": {}}, {"error": "no"}, {"error": {"code": "x"}}],
)
def test_an_answer_that_is_no_json_rpc_counts_as_unreachable(garbage: Any) -> None:
    with pytest.raises(ChainUnreachable):
        result_of(garbage, "eth_chainId")


def test_errors_and_logs_mask_secrets_in_urls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert masked_url(SECRET_URL) == "http://127.0.0.1:9/..."
    transport = HttpTransport(SECRET_URL)
    mask_libraries(Masker([SECRET_URL]))
    with caplog.at_level(logging.DEBUG), pytest.raises(ChainUnreachable) as caught:
        endpoints(transport).ask("eth_chainId")
    assert any(record.name.startswith(("urllib3", "web3")) for record in caplog.records), (
        "the libraries said nothing: nothing was shown"
    )
    said = str(caught.value) + caplog.text
    assert not [secret for secret in SECRETS if secret in said], said


@pytest.mark.parametrize("port", [9, 99999])
def test_errors_of_one_transport_are_masked(port: int) -> None:
    """A transport masks its own errors, since they may be shown without `Endpoints`.

    The library's error for an invalid port contains the whole URL.
    """
    with pytest.raises(ChainUnreachable) as caught:
        HttpTransport(SECRET_URL.replace(":9/", f":{port}/"))("eth_chainId", ())
    assert not [secret for secret in SECRETS if secret in str(caught.value)], caught.value
