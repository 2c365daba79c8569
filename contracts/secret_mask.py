"""Keeps the secrets of RPC endpoints' URLs out of logs, errors and the status.

The keys are in a URL's path, query and user part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

# Libraries whose log lines contain URLs.
LIBRARIES = ("web3", "urllib3", "requests")
# In characters. A shorter piece of a path is not a key, and masking it would hide ordinary words.
SHORTEST = 4


def masked_url(url: str) -> str:
    """Return a URL's scheme, host and port, and "/..." for the rest."""
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
    """Replaces the secrets of some URLs in any text."""

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
    """Masks the records of a logger."""

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
    """Add the filter to each logger of these libraries.

    A filter of a parent logger does not see the records of its children.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in LIBRARIES:
            logging.getLogger(name).addFilter(MaskingFilter(masker))
