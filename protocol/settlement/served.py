"""What receipts of serving earn: work like certified samples, at the price of the run's manifest.

Keys are free, so a stage could sign receipts of traffic that it makes for itself. A run therefore
pays for the payers that its manifest names: clients whose traffic the owner pays for, such as a
public API. What a payer may bring in one epoch is bounded; above the bound, its stages share it.

A receipt is cumulative over its session, so each epoch pays what the receipt adds to those of
earlier epochs. A receipt that does not verify, of another payer, or below an earlier one counts
nothing. The result is the same for everyone, whatever a data set claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from protocol.chain.account_binding import check_binding
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.inference.receipt import (
    MAX_RECEIPT_BYTES,
    ServiceReceipt,
    SignedReceipt,
    decode_receipt,
)
from protocol.messages.offer import Binding
from protocol.run.manifest import Manifest
from protocol.settlement.receipts import Account, Receipt
from protocol.settlement.rules import Serving
from protocol.settlement.shares import share_pool

MILLION = 1_000_000
MOST_IN_EPOCH = 2048
"""The receipts of one epoch in a data set: 1.3 MB of its 16."""

Session = tuple[PeerId, PeerId, PeerId]
"""The payer, the stage and the client's session."""


class ServedReceipt(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A receipt with both signatures, and the account of its stage."""

    # An encoded `SignedReceipt`.
    receipt: Annotated[bytes, Meta(max_length=2 * MAX_RECEIPT_BYTES)]
    binding: Binding


class CheckedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that a run pays for."""

    served: ServedReceipt
    receipt: ServiceReceipt
    account: Account

    @property
    def session(self) -> Session:
        return self.receipt.payer, self.receipt.stage, self.receipt.session


def check_served(manifest: Manifest, served: ServedReceipt) -> CheckedReceipt | None:
    """Return a receipt that the run pays for; None for any other."""
    settlement, serving = manifest.settlement, _serving(manifest)
    if settlement is UNSET or serving is None:
        return None
    try:
        signed: SignedReceipt = decode_receipt(served.receipt)
        # The cheap test comes first: a data set may have many receipts of strangers.
        named = msgspec.msgpack.decode(signed.payload, type=ServiceReceipt)
        if named.payer not in serving.payers:
            return None
        receipt = signed.open_countersigned()
        account = check_binding(
            served.binding, receipt.stage, settlement.chain_id, settlement.contract_bytes
        )
    except (PeerFault, msgspec.DecodeError, ValueError, RecursionError):
        return None
    return CheckedReceipt(served=served, receipt=receipt, account=account)


def newest_receipts(
    manifest: Manifest, served: Iterable[ServedReceipt]
) -> dict[Session, CheckedReceipt]:
    """Return the receipt for the most work of each session that the run pays for."""
    newest: dict[Session, CheckedReceipt] = {}
    for one in served:
        checked = check_served(manifest, one)
        if checked is None:
            continue
        known = newest.get(checked.session)
        if known is None or _order(known) < _order(checked):
            newest[checked.session] = checked
    return newest


def served_work(
    manifest: Manifest, epochs: Iterable[Iterable[ServedReceipt]]
) -> list[tuple[Receipt, ...]]:
    """Return what each epoch's receipts of serving earn, as work in samples, oldest epoch first."""
    serving = _serving(manifest)
    counted: dict[Session, int] = {}
    result: list[tuple[Receipt, ...]] = []
    for epoch, served in enumerate(epochs):
        receipts: list[Receipt] = []
        fresh = _fresh(manifest, served, counted)
        for payer in sorted({session[0] for session in fresh}):
            assert serving is not None, "only runs with a price have receipts that count"
            own = {
                session: checked.receipt.layer_tokens - counted.get(session, 0)
                for session, checked in fresh.items()
                if session[0] == payer
            }
            for session, work in _bounded(own, serving.most_layer_tokens).items():
                receipts.append(
                    Receipt(
                        peer="/".join(session),
                        seq=epoch,
                        samples=work * serving.samples_per_million // MILLION,
                        contribution=digest(fresh[session].served.receipt),
                        account=fresh[session].account,
                    )
                )
        counted |= {session: one.receipt.layer_tokens for session, one in fresh.items()}
        result.append(tuple(receipts))
    return result


def fresh_served(
    manifest: Manifest,
    earlier: Iterable[Iterable[ServedReceipt]],
    served: Iterable[ServedReceipt],
) -> tuple[ServedReceipt, ...]:
    """Return the receipts that an epoch pays, after earlier ones: those for the most new work.

    The order is that of their bytes, so that settlers with the same receipts agree.
    """
    counted: dict[Session, int] = {}
    for epoch in earlier:
        fresh = _fresh(manifest, epoch, counted)
        counted |= {session: one.receipt.layer_tokens for session, one in fresh.items()}
    found = _fresh(manifest, served, counted)
    most = sorted(
        found.values(),
        key=lambda one: (
            counted.get(one.session, 0) - one.receipt.layer_tokens,
            one.served.receipt,
        ),
    )
    chosen = [one.served for one in most[:MOST_IN_EPOCH]]
    return tuple(sorted(chosen, key=lambda one: one.receipt))


def _fresh(
    manifest: Manifest, served: Iterable[ServedReceipt], counted: Mapping[Session, int]
) -> dict[Session, CheckedReceipt]:
    """Return the newest receipts that are for more work than what was counted."""
    return {
        session: checked
        for session, checked in newest_receipts(manifest, served).items()
        if checked.receipt.layer_tokens > counted.get(session, 0)
    }


def _serving(manifest: Manifest) -> Serving | None:
    settlement = manifest.settlement
    if settlement is UNSET or settlement.serving is UNSET:
        return None
    return settlement.serving


def _bounded(work: dict[Session, int], most: int) -> dict[Session, int]:
    """Return the work of one payer, shared out where it is above the bound."""
    if sum(work.values()) <= most:
        return work
    shares = share_pool(most, {"/".join(session).encode(): one for session, one in work.items()})
    return {session: shares["/".join(session).encode()] for session in work}


def _order(checked: CheckedReceipt) -> tuple[int, bytes]:
    return checked.receipt.layer_tokens, checked.served.receipt
