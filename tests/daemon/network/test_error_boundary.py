"""The error boundary: failures change their kind, cancellation does not."""

from __future__ import annotations

import pytest
import trio

from daemon.network.error_boundary import Refusals, contain_errors, translate_errors
from protocol.errors import PeerFault, Unreachable
from protocol.journal import REFUSALS


async def failing(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), ExceptionGroup("many", [KeyError(), AssertionError()]), TimeoutError()],
)
async def test_failures_are_translated_or_contained(error: Exception) -> None:
    with pytest.raises(Unreachable, match="doing it"), translate_errors("doing it"):
        await failing(error)
    with contain_errors("doing it") as outcome:
        await failing(error)
    assert outcome.failed is not None


async def test_our_own_exceptions_pass() -> None:
    with pytest.raises(PeerFault), translate_errors("doing it"):
        await failing(PeerFault("stale", "ours"))


async def test_cancellation_passes_even_beside_a_failure() -> None:
    async def both() -> None:
        async with trio.open_nursery() as nursery:

            async def wait_then_fail() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError

            nursery.start_soon(wait_then_fail)
            nursery.start_soon(trio.sleep_forever)

    for boundary in (translate_errors, contain_errors):
        with trio.CancelScope() as scope:
            scope.cancel()
            with boundary("doing it"):
                await both()
                pytest.fail("went on")
        assert scope.cancelled_caught


def test_refusals_accept_known_reasons_only() -> None:
    refusals = Refusals()
    assert refusals.snapshot() == dict.fromkeys(REFUSALS, 0)
    refusals.count("tls")
    assert refusals.snapshot()["tls"] == 1
    with pytest.raises(ValueError, match="not one of"):
        refusals.count("because")
