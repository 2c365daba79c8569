"""Collects the receipts of serving that a run pays for, for its settlers.

Every node of such a run gives the receipts of its own stage, with its binding, and those that it
collected. It asks the peers that it is connected with once a minute, and keeps the receipt for the
most work of each session in its home. So settlers have them, also of stages that have left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.disk.atomic import DRAFT_PREFIX, write_atomically
from daemon.services.inference.receipt_folder import ReceiptReader
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import Digest, digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.inference.receipt import encode_receipt
from protocol.messages.base import UNREADABLE
from protocol.messages.offer import Binding
from protocol.ports.byte_stream import ByteStream
from protocol.ports.disk import DiskFull
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.run.manifest import Manifest
from protocol.settlement.served import (
    CheckedReceipt,
    ServedReceipt,
    Session,
    check_served,
    newest_receipts,
)

PROTOCOL = "/hypergpu/served/1"
FOLDER = "served"
MOST_RECEIPTS = 2048
"""A receipt has 600 bytes with its binding, so an answer has at most 1.3 MB."""

ANSWER_BYTES = 1024 * MOST_RECEIPTS
RUN_BYTES = 32
ANSWER_S = 20.0
COLLECT_S = 60.0
SERVED_AT_ONCE, SERVED_TO_PEER = 4, 1


class ServedAnswer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Receipts that a node knows."""

    served: Annotated[tuple[ServedReceipt, ...], Meta(max_length=MOST_RECEIPTS)]


def load_served(home: Path, manifest: Manifest) -> list[ServedReceipt]:
    """Return the receipts that a home has collected for a run; damaged files count as none."""
    found: list[ServedReceipt] = []
    for path in sorted((home / FOLDER).glob("*")):
        if path.name.startswith(DRAFT_PREFIX):
            continue
        try:
            with path.open("rb") as stream:
                found.append(msgspec.msgpack.decode(stream.read(4096), type=ServedReceipt))
        except (OSError, *UNREADABLE):
            # Another node has the receipt, and gives it again.
            continue
    return [checked.served for checked in newest_receipts(manifest, found).values()]


class ServedExchange:
    """The receipts of one run that this node knows."""

    def __init__(
        self,
        home: Path,
        run: Digest,
        manifest: Manifest,
        binding: Callable[[], Binding | None],
        report: Callable[[str], None],
    ) -> None:
        """
        Args:
            home: where receipts lie.
            run: its id.
            manifest: names the payers.
            binding: returns the account of this node's own stage; None without a wallet.
            report: gets a sentence about a damaged receipt, or a disk that keeps none.
        """
        self._folder, self._run, self._manifest = home / FOLDER, run, manifest
        self._binding, self._report = binding, report
        self._own = ReceiptReader(home, report)
        self._known = newest_receipts(manifest, load_served(home, manifest))

    def serve(self, network: Network, offload: Offload) -> None:
        """Answer other nodes of the run. Must be called before the network starts."""
        turns = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

        async def answer(stream: ByteStream) -> None:
            with trio.move_on_after(ANSWER_S):
                async with turns.slot(stream.peer):
                    run = await FrameReader(stream).expect_frame(RUN_BYTES)
                    served = await offload(self.known) if run == self._run else ()
                    reply = msgspec.msgpack.encode(ServedAnswer(served=served))
                    await stream.send_all(frame(reply))
                    await stream.send_eof()

        network.serve(PROTOCOL, answer)

    async def run(self, network: Network, offload: Offload) -> None:
        """Ask connected peers once a minute, until cancelled."""
        while True:
            await offload(self.known)
            for link in network.links():
                try:
                    served = await self._ask(network, link.peer)
                except (Unreachable, PeerFault):
                    # It has no receipts for this run, or another version.
                    continue
                await offload(partial(self._take, served))
            await trio.sleep(COLLECT_S)

    def known(self) -> tuple[ServedReceipt, ...]:
        """Return the receipts that this node knows, with those of its own stage. Blocking."""
        binding = self._binding()
        if binding is not None:
            own = (
                ServedReceipt(receipt=encode_receipt(signed), binding=binding)
                for signed in self._own.read()
            )
            self._take(tuple(own))
        most = sorted(self._known.values(), key=lambda one: -one.receipt.layer_tokens)
        return tuple(checked.served for checked in most[:MOST_RECEIPTS])

    async def _ask(self, network: Network, peer: PeerId) -> tuple[ServedReceipt, ...]:
        with trio.move_on_after(ANSWER_S):
            stream = await network.open_stream(peer, PROTOCOL)
            try:
                await stream.send_all(frame(self._run))
                data = await FrameReader(stream).expect_frame(ANSWER_BYTES)
            finally:
                await stream.aclose()
            return decode_as(ServedAnswer, data).served
        raise Unreachable("no receipts in time")

    def _take(self, served: tuple[ServedReceipt, ...]) -> None:
        """Keep receipts that are for more work than those before. Blocking."""
        held = {known.served for known in self._known.values()}
        for one in served:
            if one in held:
                continue
            checked = check_served(self._manifest, one)
            if checked is None:
                continue
            known = self._known.get(checked.session)
            if known is not None and known.receipt.layer_tokens >= checked.receipt.layer_tokens:
                continue
            self._known[checked.session] = checked
            self._keep(checked)
            self._forget_least()

    def _keep(self, checked: CheckedReceipt) -> None:
        path = self._path(checked.session)
        try:
            write_atomically(path, [memoryview(msgspec.msgpack.encode(checked.served))])
        except DiskFull as full:
            self._report(f"A receipt of serving is in memory only: {full}.")

    def _forget_least(self) -> None:
        """Make room: a payer's clients may have many sessions."""
        if len(self._known) > MOST_RECEIPTS:
            least = min(self._known.values(), key=lambda one: one.receipt.layer_tokens)
            del self._known[least.session]
            self._path(least.session).unlink(missing_ok=True)

    def _path(self, session: Session) -> Path:
        return self._folder / digest("/".join(session).encode()).hex()
