"""The receipts that a stage holds: checked, signed by the stage, and kept in the home.

One receipt of each session is kept, the last one. Keys are free, so a stranger could bring receipts
of many sessions; beyond `MAX_SESSIONS` the receipt for the least work makes room. A receipt for
more work than the stage did for the session is refused, so none can push out others by a large
number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer
from protocol.inference.receipt import (
    ServiceReceipt,
    SignedReceipt,
    check_receipt,
    countersign,
    decode_receipt,
)
from protocol.inference.span import SpanDigests

MAX_SESSIONS = 1024
"""Half a megabyte of receipts. An API server makes one session in weeks, `generate` one each."""

Keep = Callable[[SignedReceipt | None, PeerId], Awaitable[None]]
"""Writes the receipt of a session, or removes it for None."""


async def keep_nothing(_signed: SignedReceipt | None, _session: PeerId) -> None:
    """Forget receipts at the end of the process."""


class ReceiptDesk:
    """Accepts the receipts of one stage."""

    def __init__(
        self,
        model: Digest,
        signer: Signer,
        keep: Keep = keep_nothing,
        held: Iterable[SignedReceipt] = (),
    ) -> None:
        """`held` are the receipts of this home, of any model and checked when they came."""
        self._model, self._keep = model, keep
        self.signer = signer
        self._held: dict[PeerId, ServiceReceipt] = {}
        # Tokens x layers that this process computed for each session, beyond its last receipt.
        self._work: dict[PeerId, int] = {}
        self._writing = trio.Lock()
        for signed in held:
            receipt = signed.open()
            self._held[receipt.session] = receipt

    @property
    def tokens(self) -> int:
        """The tokens of all receipts that are held."""
        return sum(receipt.tokens for receipt in self._held.values())

    def note_work(self, session: PeerId, layer_tokens: int) -> None:
        """Count what the stage computed for a client's session."""
        work = self._work.pop(session, None)
        if work is None:
            known = self._held.get(session)
            work = known.layer_tokens if known is not None else 0
        self._work[session] = work + layer_tokens
        if len(self._work) > MAX_SESSIONS:
            # The session that was silent for longest.
            del self._work[next(iter(self._work))]

    async def accept(
        self, session: PeerId, generation: bytes, spans: Sequence[SpanDigests], data: bytes
    ) -> None:
        """Check a client's receipt at the end of a generation, sign it and keep it.

        Args:
            session: the client.
            generation: the generation that ends.
            spans: the digests that the client may have of it; none where the stage does not hold
                the generation any more.
            data: the encoded receipt.

        Raises:
            PeerFault: the receipt is not the client's, or does not fit what was computed.
        """
        signed = decode_receipt(data)
        receipt = signed.open()
        check_receipt(
            receipt,
            model=self._model,
            stage=self.signer.peer,
            session=session,
            layer_tokens=self._work.get(session, 0),
        )
        named = (receipt.inputs, receipt.outputs)
        known_digests = {(one.inputs, one.outputs) for one in spans}
        if receipt.generation != generation or named not in known_digests:
            raise PeerFault("bad_proof", "a receipt for other data than the stage computed")
        known = self._held.get(session)
        if known is not None and receipt.layer_tokens <= known.layer_tokens:
            return
        if known is None and len(self._held) >= MAX_SESSIONS:
            least = min(self._held.values(), key=lambda one: (one.layer_tokens, one.session))
            if least.layer_tokens >= receipt.layer_tokens:
                return
            del self._held[least.session]
            async with self._writing:
                await self._keep(None, least.session)
        self._held[session] = receipt
        async with self._writing:
            # A later receipt may have come while others were written.
            if self._held.get(session) is receipt:
                await self._keep(countersign(signed, self.signer), session)
