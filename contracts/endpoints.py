"""Several RPC endpoints as one: the one that answers is kept, one that does not is left alone for a
while, and each is checked before it is believed.

An error that a node answers (a revert, a nonce too low) is an answer. No connection, no JSON, a
limit that was reached: the next one is asked. The last error names every endpoint and what was
wrong with it, without its secrets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from contracts.secret_mask import Masker, masked_url
from protocol.chain.errors import ChainUnreachable, WrongChain

# An endpoint that failed is not asked first again before that: a restarting node needs about as
# long.
REST_S = 15.0
# "limit exceeded" as Infura, Alchemy and others number it.
BUSY = frozenset({-32005, -32016, -32097, 429})
# For one answer; estimateGas on a busy node takes seconds.
RPC_TIMEOUT_S = 10.0


class RpcError(Exception):
    """A node answered with an error. `data` is what a contract returned when it reverted."""

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Transport(Protocol):
    """One endpoint.

    Raises `RpcError` for an error it answers, `ChainUnreachable` for everything else.
    """

    @property
    def url(self) -> str: ...

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any: ...


class Endpoints:
    """Asks the first that answers.

    `check` is called with each endpoint before its first answer is believed, and again after it
    failed.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        check: Callable[[Transport], None],
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
        """Raises `RpcError` for the answer of a node, `WrongChain` where those that answer are all
        of another chain, else `ChainUnreachable`.
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
        """The current one first, then the others round; those that rest go last, since even they
        are better than none.
        """
        count = len(self._transports)
        around = [(self._current + step) % count for step in range(count)]
        now = self._now()
        return sorted(around, key=lambda index: self._rests_until[index] > now)

    def _failed(self, index: int, message: str) -> str:
        self._checked.discard(index)
        self._rests_until[index] = self._now() + REST_S
        return f"{masked_url(self._transports[index].url)}: {self._masker(message)}"
