"""The one importer of web3: an RPC endpoint over its HTTP provider, and what makes a whole client
from settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import HTTPError, RequestException, Timeout
from web3 import HTTPProvider
from web3.exceptions import Web3Exception

from contracts.bounded_session import BoundedSession
from contracts.chain_client import ChainClient
from contracts.chain_settings import ChainSettings
from contracts.endpoints import RPC_TIMEOUT_S, RpcError, Transport
from contracts.pending_transactions import PendingFile
from contracts.secret_mask import Masker, mask_libraries, masked_url
from contracts.transaction_broadcaster import TransactionSigner
from protocol.chain.port import ChainUnreachable


class HttpTransport:
    """One endpoint over HTTP. web3's own retries are off: which endpoint is asked next is ours to
    say.
    """

    def __init__(self, url: str, timeout_s: float = RPC_TIMEOUT_S) -> None:
        self.url = url
        session = BoundedSession(timeout_s)
        self._provider = HTTPProvider(
            url,
            request_kwargs={"timeout": timeout_s},
            session=session,
            exception_retry_configuration=None,
        )
        self._masker = Masker([url])

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        """Raises as `Transport` says."""
        try:
            answer = self._provider.make_request(method, list(parameters))  # type: ignore[arg-type]  # a method's name is text
        except (RequestException, Web3Exception, ValueError, OSError) as error:
            raise ChainUnreachable(self._masker(_in_words(error)[:300])) from None
        return result_of(answer, method)


def _in_words(error: Exception) -> str:
    """What went wrong, without the libraries' own names for it where it is one of the usual things."""
    if isinstance(error, Timeout):
        return "no answer in time"
    if isinstance(error, HTTPError):
        return str(error).partition(" for url")[0]  # "429 Client Error: Too Many Requests"
    if isinstance(error, json.JSONDecodeError):
        return "its answer is no JSON"
    if isinstance(error, NoConnection) and error.args:
        # Behind "HTTPConnection(host='...', port=...): ".
        return str(getattr(error.args[0], "reason", error)).rpartition("): ")[2]
    return f"{type(error).__name__}: {error}"


def result_of(answer: Any, method: str) -> Any:
    """What a JSON-RPC answer holds.

    Raises `RpcError` for an error, `ChainUnreachable` for what is no answer.
    """
    if not isinstance(answer, dict) or ("result" not in answer) == ("error" not in answer):
        raise ChainUnreachable(f"{method} was answered with what is no JSON-RPC")
    if "result" in answer:
        return answer["result"]
    error = answer["error"]
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise ChainUnreachable(f"{method} was answered with what is no JSON-RPC error")
    data = error.get("data")
    try:
        output = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else b""
    except ValueError:
        output = b""
    raise RpcError(error["code"], str(error.get("message", "")), output)


def connect(
    settings: ChainSettings,
    signer: TransactionSigner | None,
    kept: Path | None,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    transports: Sequence[Transport] | None = None,
) -> ChainClient:
    """A client of the chain that `settings` name.

    `kept` is the directory for what is in flight; without `signer` it only reads. Asks nobody yet.

    Raises `ValueError` for a profile that is none or an address that is no URL.
    """
    for url in settings.urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"{masked_url(url)} is no address of an RPC endpoint: http:// or https://"
            )
    mask_libraries(Masker(settings.urls))
    file = None
    if kept is not None and signer is not None:
        file = kept / f"{settings.chain_id}-{signer.address.lower()}.json"
    return ChainClient(
        settings,
        transports=[HttpTransport(url) for url in settings.urls]
        if transports is None
        else transports,
        signer=signer,
        file=PendingFile(file),
        now=now,
        sleep=sleep,
    )
