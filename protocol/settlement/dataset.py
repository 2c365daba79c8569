"""The published data set of a settlement.

Together with the certificates it gives the root again. It travels as the canonical bytes of one
record, named by their digest, which the proposal carries to the chain. Its totals and root are
there only to be read: a verifier computes them and compares. What certificates do not say is short
and named: each epoch's pool and last certificate, the accounts that sent no heartbeat, and the
reported offences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from protocol.certificates.certificate import OpenCertificate
from protocol.chain.account_binding import wallet_of_offer
from protocol.chain.keccak import Address, account_bytes, address_of
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.messages.base import UNREADABLE, Hash
from protocol.run.manifest import Manifest
from protocol.settlement.history import recoveries_in
from protocol.settlement.merkle_tree import SettlementTree
from protocol.settlement.paid_work import pay_rule
from protocol.settlement.receipts import by_epoch
from protocol.settlement.sanctions import Offence
from protocol.settlement.served import ServedReceipt, served_work
from protocol.settlement.totals import EpochWork, SettlementTotals, settle

MAX_DATASET_BYTES = 16 << 20
"""1,000 accounts are 60 KB, and each epoch adds 100 bytes: enough for a century of daily epochs."""

_DOMAIN = b"hypergpu/settlement/1\0"
# The place of `epochs` in the record.
_EPOCHS = 3

Account = Annotated[bytes, Meta(min_length=20, max_length=20)]
Amount = Annotated[bytes, Meta(max_length=32)]
"""An amount, big-endian: amounts exceed the integers of msgpack."""


class EpochTerms(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """One epoch of a settlement, with what certificates do not say of it.

    `epoch` is its number on the chain, `tip` its last certificate. `silent` are the accounts that
    sent no heartbeat. An offence is (account, evidence, reason, samples). `served` are receipts of
    serving that are new or have grown.
    """

    epoch: Annotated[int, Meta(ge=0)]
    pool: Amount
    tip: Hash
    silent: tuple[Account, ...] = ()
    offences: tuple[
        tuple[Account, Hash, Annotated[str, Meta(max_length=256)], Annotated[int, Meta(ge=0)]], ...
    ] = ()
    served: tuple[ServedReceipt, ...] = ()


class Dataset(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A settlement up to the last of `epochs`.

    `totals` are in the order of accounts, without those that earned nothing.
    """

    run: Hash
    chain_id: int
    contract: Account
    epochs: Annotated[tuple[EpochTerms, ...], Meta(min_length=1)]
    root: Hash
    totals: tuple[tuple[Account, Amount], ...]

    @property
    def total(self) -> int:
        return sum(int.from_bytes(amount, "big") for _, amount in self.totals)

    def total_of(self, account: bytes) -> int:
        """Return what the account may claim in all; 0 for an unknown account."""
        return next(
            (int.from_bytes(amount, "big") for name, amount in self.totals if name == account), 0
        )

    def tree(self) -> SettlementTree:
        """Return the Merkle tree. Raises `ValueError` if no account earned anything."""
        return SettlementTree(
            (address_of(account), int.from_bytes(amount, "big")) for account, amount in self.totals
        )


def amount_bytes(amount: int) -> bytes:
    """Encode an amount in as few bytes as hold it."""
    return amount.to_bytes((amount.bit_length() + 7) // 8, "big")


def encode_dataset(dataset: Dataset) -> bytes:
    """Return the canonical bytes.

    An epoch without receipts of serving has the bytes of earlier versions, which do not know them.
    """
    whole = msgspec.to_builtins(dataset, builtin_types=(bytes,))
    for terms in whole[_EPOCHS]:
        if not terms[-1]:
            terms.pop()
    return msgspec.msgpack.encode(whole)


def dataset_name(raw: bytes) -> Digest:
    """Return the digest that the proposal carries."""
    return digest(_DOMAIN, raw)


def decode_dataset(raw: bytes, name: Digest) -> Dataset:
    """Decode a data set and check its name.

    Raises:
        PeerFault: "bad_proof" for other bytes than those named, "malformed" for bytes that are not
            a data set, "oversized" for too many.
    """
    if len(raw) > MAX_DATASET_BYTES:
        raise PeerFault("oversized", f"a data set of {len(raw)} bytes")
    if dataset_name(raw) != name:
        raise PeerFault("bad_proof", f"these bytes are not the data set {name.hex()[:12]}")
    try:
        return msgspec.msgpack.decode(raw, type=Dataset)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"bytes that are not a data set: {error}") from None


def work_of(
    run: Digest,
    manifest: Manifest,
    epochs: Iterable[EpochTerms],
    certificates: Iterable[OpenCertificate],
) -> list[EpochWork]:
    """Return the input of `settle`. Raises `UserError("CERTIFICATES_MISSING")`."""
    terms, recoveries = list(epochs), recoveries_in(certificates)
    receipts = by_epoch(
        certificates,
        [one.tip for one in terms],
        run,
        lambda peer, offer: wallet_of_offer(manifest, peer, offer),
        pay_rule(run, manifest, recoveries),
        recoveries,
    )
    serving = served_work(manifest, (one.served for one in terms))
    return [
        EpochWork(
            pool=int.from_bytes(one.pool, "big"),
            receipts=(*counted, *served),
            silent=frozenset(one.silent),
            offences=tuple(
                Offence(epoch=0, account=account, evidence=evidence, reason=reason, samples=samples)
                for account, evidence, reason, samples in one.offences
            ),
        )
        for one, counted, served in zip(terms, receipts, serving, strict=True)
    ]


def make_dataset(
    run: Digest,
    manifest: Manifest,
    epochs: Iterable[EpochTerms],
    certificates: Iterable[OpenCertificate],
) -> tuple[Dataset, SettlementTotals]:
    """Compute the data set for these epochs from the certificates, and the totals behind it. Pure.

    Raises:
        ValueError: if the run has no settlement, or no account has earned anything yet.
        UserError: "CERTIFICATES_MISSING".
    """
    settlement = manifest.settlement
    if settlement is UNSET:
        raise ValueError("this run has no settlement: its manifest has no [settlement]")
    terms = tuple(epochs)
    settled = settle(work_of(run, manifest, terms, certificates), settlement.rules)
    if not settled.totals:
        raise ValueError("no account has unlocked earnings yet")
    totals = tuple((account, amount_bytes(amount)) for account, amount in settled.totals.items())
    tree = SettlementTree(
        (address_of(account), amount) for account, amount in settled.totals.items()
    )
    dataset = Dataset(
        run=run,
        chain_id=settlement.chain_id,
        contract=settlement.contract_bytes,
        epochs=terms,
        root=tree.root,
        totals=totals,
    )
    return dataset, settled


def proof_for(dataset: Dataset, address: Address) -> tuple[int, tuple[bytes, ...]]:
    """Return an account's total and its proof; (0, ()) if it earned nothing."""
    total = dataset.total_of(account_bytes(address))
    return (total, dataset.tree().proof(address)) if total else (0, ())
