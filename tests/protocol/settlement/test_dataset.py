"""The data set: the same certificates give the same bytes and the same root to everyone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from protocol.certificates.tip import genesis
from protocol.chain.keccak import account_bytes, address_of
from protocol.digest import digest
from protocol.errors import PeerFault, UserError
from protocol.settlement.dataset import (
    Dataset,
    EpochTerms,
    amount_bytes,
    dataset_name,
    decode_dataset,
    encode_dataset,
    make_dataset,
    proof_for,
)
from protocol.settlement.merkle_tree import SettlementTree, leads_to, leaf_of
from protocol.settlement.receipts import Receipt, by_epoch
from protocol.settlement.rules import SettlementRules
from protocol.settlement.totals import EpochWork, settle
from tests.protocol.rounds import MANIFEST, RUN
from tests.protocol.settlement.paid import PAID, PAID_RUN, certificate, wallet

ONE, TIP1 = certificate(genesis(PAID_RUN), {0: 10, 1: 30})
TWO, TIP2 = certificate(TIP1, {0: 10, 1: 10, 2: 20}, seq=2)
FIRST = EpochTerms(epoch=4, pool=amount_bytes(1000), tip=TIP1.hash)
SECOND = EpochTerms(epoch=5, pool=amount_bytes(800), tip=TIP2.hash)


def total(dataset: Dataset, i: int) -> int:
    return dataset.total_of(wallet(i).raw_address)


def test_certificates_become_totals_and_each_has_its_proof() -> None:
    dataset, settled = make_dataset(PAID_RUN, PAID, [FIRST, SECOND], [ONE, TWO])
    assert [total(dataset, i) for i in range(4)] == [250 + 200, 750 + 200, 400, 0]
    assert dataset.total == settled.total == 1800
    for i in range(3):
        earned, proof = proof_for(dataset, wallet(i).address)
        assert leads_to(dataset.root, leaf_of(wallet(i).address, earned), proof)
        assert not leads_to(dataset.root, leaf_of(wallet(i).address, earned + 1), proof)
    assert proof_for(dataset, wallet(3).address) == (0, ())


def test_the_order_of_certificates_changes_no_byte() -> None:
    one, _ = make_dataset(PAID_RUN, PAID, [FIRST, SECOND], [ONE, TWO])
    other, _ = make_dataset(PAID_RUN, PAID, [FIRST, SECOND], [TWO, ONE, TWO])
    assert encode_dataset(one) == encode_dataset(other)


def test_an_epoch_is_paid_once_however_often_it_is_settled() -> None:
    """The total is the same when it is computed again after a claim.

    So a claim, which pays the total less what was claimed, then pays nothing.
    """
    before, _ = make_dataset(PAID_RUN, PAID, [FIRST], [ONE, TWO])
    after, _ = make_dataset(PAID_RUN, PAID, [FIRST, replace(SECOND, tip=TIP1.hash)], [ONE, TWO])
    assert (before.totals, before.root) == (after.totals, after.root)


def test_a_data_set_survives_the_wire_and_other_bytes_are_refused() -> None:
    dataset, _ = make_dataset(PAID_RUN, PAID, [FIRST], [ONE])
    raw = encode_dataset(dataset)
    name = dataset_name(raw)
    assert decode_dataset(raw, name) == dataset
    for wrong in (raw[:-1], raw + b"\0", b"", b"\xc1"):
        with pytest.raises(PeerFault, match="are not the data set"):
            decode_dataset(wrong, name)
        with pytest.raises(PeerFault, match="not a data set"):
            decode_dataset(wrong, dataset_name(wrong))


def test_a_missing_certificate_is_named() -> None:
    with pytest.raises(UserError) as caught:
        make_dataset(PAID_RUN, PAID, [SECOND], [TWO])
    assert (caught.value.code, TIP1.hash.hex()[:12] in str(caught.value)) == (
        "CERTIFICATES_MISSING",
        True,
    )


def test_a_run_without_a_chain_has_no_settlement() -> None:
    with pytest.raises(ValueError, match="no settlement"):
        make_dataset(RUN, MANIFEST, [FIRST], [])


def test_silent_accounts_and_offences_are_in_the_bytes() -> None:
    plain, _ = make_dataset(PAID_RUN, PAID, [FIRST], [ONE])
    silent, _ = make_dataset(
        PAID_RUN, PAID, [replace(FIRST, silent=(wallet(0).raw_address,))], [ONE]
    )
    accusing = replace(
        FIRST,
        offences=((wallet(1).raw_address, digest(b"proof"), "two results for one slice", 30),),
    )
    accused, settled = make_dataset(PAID_RUN, PAID, [accusing], [ONE])
    assert (total(silent, 0), total(silent, 1)) == (0, 1000)
    assert (total(accused, 0), total(accused, 1)) == (1000, 0)
    assert settled.sanctions[0].evidence == digest(b"proof")
    assert len({dataset_name(encode_dataset(one)) for one in (plain, silent, accused)}) == 3


def test_a_thousand_accounts_fit_one_root() -> None:
    accounts = [digest(b"account", i.to_bytes(4, "big"))[:20] for i in range(1000)]
    receipts = [
        Receipt(
            peer=f"peer {i}",
            seq=seq,
            samples=1 + (i * 7919 + seq) % 1000,
            contribution=digest(bytes([seq])),
            account=account,
        )
        for i, account in enumerate(accounts)
        for seq in (1, 2)
    ]
    pool = 10**24 + 7
    settled = settle(
        [EpochWork(pool=pool, receipts=tuple(receipts))], SettlementRules(lock_epochs=0)
    )
    assert (len(settled.totals), settled.total) == (1000, pool)
    tree = SettlementTree(
        (address_of(account), amount) for account, amount in settled.totals.items()
    )
    for account in accounts[::50]:
        address = address_of(account)
        assert leads_to(
            tree.root, leaf_of(address, settled.totals[account_bytes(address)]), tree.proof(address)
        )


def test_epochs_follow_each_other_on_one_lineage() -> None:
    tips = [genesis(PAID_RUN)]
    certificates = []
    for seq in range(1, 5):
        opened, tip = certificate(tips[-1], {0: seq, 1: 10 - seq}, seq=seq)
        certificates.append(opened)
        tips.append(tip)
    epochs = [
        EpochTerms(epoch=i, pool=amount_bytes(100), tip=tip.hash) for i, tip in enumerate(tips[1:])
    ]
    totals = [
        make_dataset(PAID_RUN, PAID, epochs[: count + 1], certificates)[0] for count in range(4)
    ]
    assert [total(dataset, 0) for dataset in totals] == [10, 30, 60, 100]
    for before, after in pairwise(totals):
        assert before.total + 100 == after.total


def test_an_epoch_lists_what_came_since_the_last_one() -> None:
    epochs = by_epoch([ONE, TWO], [TIP1.hash, TIP2.hash, TIP2.hash], PAID_RUN, lambda *_: None)
    assert [[receipt.seq for receipt in receipts] for receipts in epochs] == [[1, 1], [2, 2, 2], []]
