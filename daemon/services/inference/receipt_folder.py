"""The receipts of a home's stages on disk, one file for each session of a client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from daemon.disk.atomic import DRAFT_PREFIX, write_atomically
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.inference.receipt import (
    MAX_RECEIPT_BYTES,
    SignedReceipt,
    decode_receipt,
    encode_receipt,
)
from protocol.ports.disk import DiskFull
from protocol.ports.offload import Offload

FOLDER = "receipts"

_log = logging.getLogger(__name__)


class ReceiptReader:
    """Reads the receipts of a home, again only where a file has changed. Blocking."""

    def __init__(self, home: Path, report: Callable[[str], None]) -> None:
        """`report` gets a sentence for each file that is no receipt with both signatures."""
        self._folder, self._report = home / FOLDER, report
        # By name: the date of the file, and what it holds.
        self._known: dict[str, tuple[int, SignedReceipt | None]] = {}

    def read(self) -> list[SignedReceipt]:
        """Return the receipts, in the order of their files' names."""
        known: dict[str, tuple[int, SignedReceipt | None]] = {}
        for path in sorted(self._folder.glob("*")):
            if path.name.startswith(DRAFT_PREFIX):
                continue
            try:
                changed_ns = path.stat().st_mtime_ns
                before = self._known.get(path.name)
                unchanged = before is not None and before[0] == changed_ns
                known[path.name] = before if unchanged and before else (changed_ns, _read(path))
            except (OSError, PeerFault) as error:
                self._report(f"The receipt {path} cannot be read, and is left out: {error}.")
                if isinstance(error, PeerFault):
                    known[path.name] = (changed_ns, None)
        self._known = known
        return [signed for _changed_ns, signed in known.values() if signed is not None]


def load_receipts(home: Path, report: Callable[[str], None]) -> list[SignedReceipt]:
    """Return the receipts of a home; see `ReceiptReader`."""
    return ReceiptReader(home, report).read()


def _read(path: Path) -> SignedReceipt:
    with path.open("rb") as stream:
        signed = decode_receipt(stream.read(2 * MAX_RECEIPT_BYTES))
    signed.open_countersigned()
    return signed


class ReceiptFolder:
    """Keeps receipts for `ReceiptDesk`."""

    def __init__(self, home: Path, offload: Offload) -> None:
        self._folder, self._offload = home / FOLDER, offload

    async def keep(self, signed: SignedReceipt | None, session: PeerId) -> None:
        """Write the receipt of a session durably, or remove it for None.

        A full disk loses the receipt with this process. The client's next one covers it too.
        """
        try:
            await self._offload(partial(self._keep, signed, session))
        except DiskFull as full:
            _log.warning("A receipt of %s is not on disk: %s", session, full)

    def _keep(self, signed: SignedReceipt | None, session: PeerId) -> None:
        path = self._folder / session
        if signed is None:
            path.unlink(missing_ok=True)
            return
        write_atomically(path, [memoryview(encode_receipt(signed))])
