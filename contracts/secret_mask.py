"""What is secret in the address of an RPC endpoint stays out of logs, errors and the status: keys
live in its path, query and user part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

# Whose own log lines name the addresses they ask.
LIBRARIES = ("web3", "urllib3", "requests")
# Characters; a shorter piece of a path is no key, and would blank out ordinary words.
SHORTEST = 4


def masked_url(url: str) -> str:
    """Scheme, host and port; "/..." where there was more."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else host
    more = parts.path.strip("/") or parts.query or parts.fragment
    return (
        f"{parts.scheme}://{host}"
        + (f":{parts.port}" if parts.port else "")
        + ("/..." if more else "")
    )


class Masker:
    """Takes the secrets of some addresses out of any text."""

    def __init__(self, urls: Iterable[str]) -> None:
        pieces: set[str] = set()
        for url in urls:
            parts = urlsplit(url)
            found = [
                parts.username,
                parts.password,
                parts.query,
                parts.fragment,
                *parts.path.split("/"),
            ]
            found += [value for pair in parts.query.split("&") for value in pair.partition("=")[2:]]
            pieces |= {piece for piece in found if piece and len(piece) >= SHORTEST}
        self._pieces = sorted(pieces | {unquote(piece) for piece in pieces}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for piece in self._pieces:
            text = text.replace(piece, "...")
        return text


class MaskingFilter(logging.Filter):
    """Masks every record of the loggers it is put on."""

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._masker = masker

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._masker(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = self._masker(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


def mask_libraries(masker: Masker) -> None:
    """Put the filter where these libraries log: a filter on a parent does not see what its children
    log, so each logger gets it.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in LIBRARIES:
            logging.getLogger(name).addFilter(MaskingFilter(masker))
