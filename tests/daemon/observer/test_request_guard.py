"""The request guard: host names, origins, methods."""

from __future__ import annotations

import pytest

from daemon.observer.request_guard import RequestGuard, host_name
from daemon.observer.settings import BoundAddress, ObserverSettings


def guard(host: str = "127.0.0.1", hosts: tuple[str, ...] = ()) -> RequestGuard:
    return RequestGuard(ObserverSettings(hosts=hosts), BoundAddress(host=host, port=8765))


def code(
    checked: RequestGuard, headers: dict[str, str], *, method: str = "GET", local: str = "127.0.0.1"
) -> str:
    refusal = checked.check(method, "/", headers, local)
    return refusal.code if refusal else ""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8765", "localhost"),
        ("LOCALHOST.", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("[::1]x", ""),
        ("[::1", ""),
        ("a:b", ""),
        ("a:80:80", ""),
        ("", ""),
    ],
)
def test_host_name(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:8765", "[::1]:8765", "LocalHost:1"]
)
def test_guard_allows_own_host_names(host: str) -> None:
    assert code(guard(), {"Host": host}) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "192.0.2.7",
        "@localhost",
    ],
)
def test_guard_refuses_other_host_names(host: str) -> None:
    assert code(guard(), {"Host": host}) == "HOST"


def test_guard_allows_configured_host_names() -> None:
    assert code(guard(hosts=("gpu.example",)), {"Host": "GPU.example"}) == ""
    assert code(guard(hosts=("",)), {"Host": ""}) == "HOST"


def test_guard_on_a_wildcard_address_allows_the_receiving_address_only() -> None:
    open_guard = guard("0.0.0.0")
    assert code(open_guard, {"Host": "192.0.2.7:8765"}, local="192.0.2.7") == ""
    assert code(open_guard, {"Host": "192.0.2.8:8765"}, local="192.0.2.7") == "HOST"
    # Some browsers let a page reach 0.0.0.0 as if it were the page's own host.
    assert code(open_guard, {"Host": "0.0.0.0:8765"}) == "HOST"
    assert code(open_guard, {"Host": "evil.example"}, local="192.0.2.7") == "HOST"


def test_guard_refuses_other_origins() -> None:
    own = {"Host": "localhost:8765"}
    assert code(guard(), {**own, "Origin": "http://localhost:8765"}) == ""
    for origin in ("http://evil.example", "null", "", "http://localhost:8766", "http://localhost"):
        assert code(guard(), {**own, "Origin": origin}) == "ORIGIN"
    assert (
        code(guard(), {**own, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
        == "ORIGIN"
    )
    assert (
        code(guard(), {**own, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}) == ""
    )
    assert code(guard(), {**own, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}) == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_guard_allows_get_and_head_only(method: str) -> None:
    assert code(guard(), {"Host": "localhost"}, method=method) == "METHOD"
