"""Makes chain clients from settings. Only this module imports web3, for its HTTP provider."""

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
from web3.types import RPCEndpoint

from contracts.bounded_session import BoundedSession
from contracts.chain_client import ChainClient
from contracts.chain_settings import ChainSettings
from contracts.endpoints import RPC_TIMEOUT_S, RpcError, RpcTransport
from contracts.pending_transactions import PendingFile
from contracts.secret_mask import Masker, mask_libraries, masked_url
from contracts.transaction_broadcaster import TransactionSigner
from protocol.chain.errors import ChainUnreachable


class HttpTransport:
    """One endpoint over HTTP.

    web3's own retries are off, since `Endpoints` decides which endpoint to ask next.
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
        """Ask the endpoint. Raises what `RpcTransport` says."""
        try:
            answer = self._provider.make_request(RPCEndpoint(method), list(parameters))
        except (RequestException, Web3Exception, ValueError, OSError) as error:
            raise ChainUnreachable(self._masker(_in_words(error)[:300])) from None
        return result_of(answer, method)


def _in_words(error: Exception) -> str:
    """Describe an error. The usual errors are described without names of the libraries."""
    if isinstance(error, Timeout):
        return "no answer in time"
    if isinstance(error, HTTPError):
        # For example: "429 Client Error: Too Many Requests".
        return str(error).partition(" for url")[0]
    if isinstance(error, json.JSONDecodeError):
        return "its answer is not JSON"
    if isinstance(error, NoConnection) and error.args:
        # The reason follows "HTTPConnection(host='...', port=...): ".
        return str(getattr(error.args[0], "reason", error)).rpartition("): ")[2]
    return f"{type(error).__name__}: {error}"


def result_of(answer: Any, method: str) -> Any:
    """Return the result in a JSON-RPC answer.

    Raises `RpcError` for an error, and `ChainUnreachable` for anything else.
    """
    if not isinstance(answer, dict) or ("result" not in answer) == ("error" not in answer):
        raise ChainUnreachable(f"the answer to {method} is not JSON-RPC")
    if "result" in answer:
        return answer["result"]
    error = answer["error"]
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise ChainUnreachable(f"the answer to {method} is not a JSON-RPC error")
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
    transports: Sequence[RpcTransport] | None = None,
) -> ChainClient:
    """Make a client of the chain in `settings`, without asking any node.

    `kept` is the directory for transactions in flight. Without a `signer` the client only reads.
    Raises `ValueError` for an address that is not a URL.
    """
    for url in settings.urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"{masked_url(url)} is not the URL of an RPC endpoint: http:// or https://"
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
