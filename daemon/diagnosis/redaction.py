"""Removes secrets and addresses from text that a person sends to others.

The same address gets the same placeholder, so that a reader can still follow a story.
"""

from __future__ import annotations

import re
from pathlib import Path

SECRET = "[secret]"
_INVITATION = re.compile(r"\bhgpu1[0-9A-Za-z]{8,}")
# Providers of endpoints put their keys into the path, so the whole address goes.
_URL_SECRET = re.compile(r"(?<=://)(?!127\.0\.0\.1[:/])[^\s\"']+")
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_WALLET = re.compile(r"\b0x[0-9a-fA-F]{40}\b")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/-]{8,}")
_KEY = re.compile(r"\b0x[0-9a-fA-F]{64}\b")
_HOST = re.compile(r"/dns[46]?/([^/\s]+)")
_LOCAL = frozenset({"127.0.0.1", "0.0.0.0", "::1", "::"})


class Redaction:
    """Replaces what could identify or endanger a person."""

    def __init__(self, home: Path, names: tuple[str, ...]) -> None:
        """`names` are words to replace as a whole: of the user and of the machine."""
        self._places: dict[str, dict[str, str]] = {}
        self._words = [(str(home), "[home]")]
        own = str(Path.home())
        if len(own) > 1:
            self._words.append((own, "~"))
        self._names = tuple(name for name in names if len(name) > 2)

    def redacted(self, text: str) -> str:
        """Return the text without secrets, addresses and names."""
        for pattern in (_INVITATION, _KEY):
            text = pattern.sub(SECRET, text)
        text = _BEARER.sub(rf"\1{SECRET}", text)
        text = _URL_SECRET.sub(SECRET, text)
        text = _WALLET.sub(lambda found: self._placeholder("account", found[0]), text)
        text = _HOST.sub(lambda found: f"/dns/{self._placeholder('host', found[1])}", text)
        text = _IPV4.sub(lambda found: self._address(found[0]), text)
        text = _IPV6.sub(lambda found: self._address(found[0]), text)
        for word, shown in self._words:
            text = text.replace(word, shown)
        for name in self._names:
            text = re.sub(rf"\b{re.escape(name)}\b", "[name]", text)
        return text

    def _address(self, text: str) -> str:
        # A time such as 12:04:09 has the form of an address, and no letters.
        is_time = ":" in text and "::" not in text and text.count(":") < 7
        return text if text in _LOCAL or is_time else self._placeholder("ip", text)

    def _placeholder(self, kind: str, value: str) -> str:
        known = self._places.setdefault(kind, {})
        return known.setdefault(value.lower(), f"[{kind}-{len(known) + 1}]")
