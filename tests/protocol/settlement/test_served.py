"""Receipts of serving earn what the manifest says, once, and only those of named payers."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from protocol.certificates.tip import genesis
from protocol.identity import Signer
from protocol.inference.receipt import ServiceReceipt, countersign, encode_receipt, sign_receipt
from protocol.run.manifest import Manifest, seal
from protocol.settlement.dataset import (
    EpochTerms,
    amount_bytes,
    dataset_name,
    decode_dataset,
    encode_dataset,
    make_dataset,
)
from protocol.settlement.rules import Serving
from protocol.settlement.served import ServedReceipt, served_work
from tests.protocol.settlement.paid import PAID, PAID_RUN, binding, certificate, wallet

PAYER, STRANGER, STAGE, OTHER = (Signer(bytes([number]) * 32) for number in (41, 42, 43, 44))
SERVING = Serving(payers=(PAYER.peer,), samples_per_million=1000, most_layer_tokens=10**9)


def paying(serving: Serving = SERVING) -> Manifest:
    assert isinstance(PAID.settlement, msgspec.Struct)
    return replace(PAID, settlement=replace(PAID.settlement, serving=serving))


def served(
    layer_tokens: int,
    *,
    stage: Signer = STAGE,
    payer: Signer = PAYER,
    session: str = "session",
    account: int = 0,
) -> ServedReceipt:
    receipt = ServiceReceipt(
        model=b"m" * 32,
        payer=payer.peer,
        stage=stage.peer,
        session=session,
        requests=1,
        tokens=layer_tokens // 10,
        layer_tokens=layer_tokens,
        busy_ms=1,
    )
    signed = countersign(sign_receipt(receipt, payer), stage)
    return ServedReceipt(receipt=encode_receipt(signed), binding=binding(account, stage.peer))


def samples(*epochs: list[ServedReceipt], serving: Serving = SERVING) -> list[dict[bytes, int]]:
    """The samples of each account by epoch."""
    found: list[dict[bytes, int]] = []
    for receipts in served_work(paying(serving), epochs):
        sums: dict[bytes, int] = {}
        for one in receipts:
            assert one.account is not None
            sums[one.account] = sums.get(one.account, 0) + one.samples
        found.append(sums)
    return found


FIRST, SECOND = (wallet(i).raw_address for i in range(2))


def test_each_epoch_pays_what_a_receipt_adds() -> None:
    assert samples([served(2_000_000)], [served(2_000_000)], [served(5_000_000)]) == [
        {FIRST: 2000},
        {},
        {FIRST: 3000},
    ]


def test_repeats_and_smaller_receipts_of_a_session_count_nothing() -> None:
    repeated = [served(3_000_000), served(1_000_000), served(3_000_000)]
    assert samples(repeated) == samples(list(reversed(repeated))) == [{FIRST: 3000}]
    assert samples([served(3_000_000)], [served(1_000_000)]) == [{FIRST: 3000}, {}]


def test_only_receipts_of_named_payers_with_both_signatures_count() -> None:
    good = served(1_000_000)
    strangers = served(1_000_000, payer=STRANGER)
    signed = msgspec.msgpack.decode(good.receipt)
    unsigned = msgspec.msgpack.encode([*signed[:2], b""])
    foreign = replace(good, binding=binding(0, OTHER.peer))
    bad = [
        strangers,
        replace(good, receipt=unsigned),
        replace(good, receipt=good.receipt[:-1]),
        replace(good, receipt=b"\xc1"),
        foreign,
    ]
    assert samples(bad) == [{}]
    assert samples([*bad, good]) == [{FIRST: 1000}]
    assert served_work(PAID, [[good]]) == [()], "a run without a price pays nothing"


def test_stages_share_what_a_payer_may_bring_in_an_epoch() -> None:
    bounded = replace(SERVING, most_layer_tokens=4_000_000)
    both = [served(6_000_000), served(2_000_000, stage=OTHER, account=1)]
    assert samples(both, serving=bounded) == [{FIRST: 3000, SECOND: 1000}]
    # What is above the bound is not carried into the next epoch.
    assert samples(both, both, serving=bounded)[1] == {}


def test_served_work_shares_the_pool_with_training() -> None:
    manifest = paying()
    run = seal(manifest).run
    terms = EpochTerms(
        epoch=0,
        pool=amount_bytes(1000),
        tip=run,
        served=(served(30_000), served(10_000, stage=OTHER, account=1)),
    )
    dataset, settled = make_dataset(run, manifest, [terms], [])
    assert settled.totals == {FIRST: 750, SECOND: 250}
    raw = encode_dataset(dataset)
    assert decode_dataset(raw, dataset_name(raw)) == dataset


def test_data_set_without_served_receipts_has_the_bytes_of_before() -> None:
    one, tip = certificate(genesis(PAID_RUN), {0: 10, 1: 30})
    terms = EpochTerms(epoch=4, pool=amount_bytes(1000), tip=tip.hash)
    dataset, _ = make_dataset(PAID_RUN, PAID, [terms], [one])
    raw = encode_dataset(dataset)
    epochs = msgspec.msgpack.decode(raw)[3]
    assert [len(each) for each in epochs] == [5]
    assert decode_dataset(raw, dataset_name(raw)) == dataset


def test_manifest_with_serving_has_another_run_id_and_without_the_same() -> None:
    assert seal(paying()).run != PAID_RUN
    with pytest.raises(ValueError, match="length"):
        msgspec.convert({"payers": [], "samples_per_million": 1}, Serving)
