"""Several RPC endpoints as one.

The client stays with the endpoint that answers, and leaves one that fails alone for a while. Each
endpoint is checked before its answers are believed. An error that a node answers (a revert, a nonce
that is too low) is an answer. After a failed connection, an answer that is not JSON, or a rate
limit, the next endpoint is asked. The final error names every endpoint and its problem, without
secrets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from contracts.secret_mask import Masker, masked_url
from protocol.chain.errors import ChainUnreachable, WrongChain

# How long a failed endpoint is not asked first: a restarting node needs about as long.
REST_S = 15.0
# The codes of "limit exceeded" at Infura, Alchemy and others.
BUSY = frozenset({-32005, -32016, -32097, 429})
# The time limit for one answer. On a busy node, estimateGas takes seconds.
RPC_TIMEOUT_S = 10.0


class RpcError(Exception):
    """An error that a node answered. `data` is what a contract returned when it reverted."""

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class RpcTransport(Protocol):
    """One endpoint.

    A call raises `RpcError` for an error that the endpoint answers, and `ChainUnreachable` for any
    other failure.
    """

    @property
    def url(self) -> str: ...

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any: ...


class Endpoints:
    """Asks the first endpoint that answers.

    `check` verifies an endpoint before its first question, and again after each failure.
    """

    def __init__(
        self,
        transports: Sequence[RpcTransport],
        check: Callable[[RpcTransport], None],
        now: Callable[[], float],
    ) -> None:
        if not transports:
            raise ValueError("a chain needs an RPC endpoint")
        self._transports = list(transports)
        self._check = check
        self._now = now
        self._checked: set[int] = set()
        self._rests_until = [0.0] * len(transports)
        self._current = 0
        self._lock = threading.RLock()
        self._masker = Masker(transport.url for transport in transports)

    def ask(self, method: str, *parameters: Any) -> Any:
        """Ask one question.

        Raises:
            RpcError: a node answered with an error.
            WrongChain: all endpoints belong to another chain.
            ChainUnreachable: no endpoint gave an answer.
        """
        with self._lock:
            problems: list[str] = []
            wrong = 0
            for index in self._order():
                transport = self._transports[index]
                try:
                    if index not in self._checked:
                        self._check(transport)
                        self._checked.add(index)
                    answer = transport(method, parameters)
                except RpcError as error:
                    if error.code not in BUSY:
                        self._current = index
                        raise RpcError(
                            error.code, self._masker(error.message), error.data
                        ) from None
                    problems.append(self._failed(index, error.message))
                except WrongChain as error:
                    wrong += 1
                    problems.append(self._failed(index, str(error)))
                except ChainUnreachable as error:
                    problems.append(self._failed(index, str(error)))
                else:
                    self._current = index
                    return answer
        raise (WrongChain if wrong == len(problems) else ChainUnreachable)("; ".join(problems))

    def _order(self) -> list[int]:
        """Return the current endpoint first, then the others in turn.

        Endpoints that failed lately come last.
        """
        count = len(self._transports)
        around = [(self._current + step) % count for step in range(count)]
        now = self._now()
        return sorted(around, key=lambda index: self._rests_until[index] > now)

    def _failed(self, index: int, message: str) -> str:
        self._checked.discard(index)
        self._rests_until[index] = self._now() + REST_S
        return f"{masked_url(self._transports[index].url)}: {self._masker(message)}"
