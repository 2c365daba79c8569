"""What the contracts' calls cost, in gas."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from protocol.chain.keccak import address_of
from protocol.chain.port import NO_HASH, InferenceRecord
from protocol.settlement.merkle_tree import SettlementTree
from tests.contracts.roots import activate_root
from tests.contracts.testnet_controls import ControlledTestnet
from tests.ports.chain_kit import ANNA, BERT, CERTIFICATE, done, fund

GAS_SNAPSHOT = Path(__file__).parent / "gas.json"


def test_gas_is_what_the_snapshot_says(testnet: ControlledTestnet) -> None:
    """Gas costs equal the snapshot exactly, since the EVM is deterministic.

    To write a new snapshot, set GAS_SNAPSHOT=write.
    """
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    gas: dict[str, int] = {"register": done(anna, anna.register("volunteer")).gas}
    # A second heartbeat within the same second is cheaper.
    testnet.advance(3)
    gas["heartbeat, the first"] = done(anna, anna.heartbeat(1, CERTIFICATE)).gas
    testnet.advance(3)
    gas["heartbeat"] = done(anna, anna.heartbeat(2, b"d" * 32)).gas
    testnet.advance(3)
    plain = testnet.client(ANNA, profile="plumise")
    gas["heartbeat without figures"] = done(plain, plain.heartbeat(0, NO_HASH)).gas
    record = InferenceRecord(model=b"m" * 32, inputs=b"i" * 32, outputs=b"o" * 32, tokens=40)
    gas["record of served tokens"] = done(anna, anna.record_inference(record)).gas
    fund(testnet, 10**9)
    accounts = [
        (address_of(bytes([7]) * 18 + number.to_bytes(2, "big")), 500) for number in range(998)
    ]
    tree = SettlementTree([*accounts, (anna.account, 1000), (bert.account, 1000)])
    activate_root(testnet, tree.root, tree.total)
    gas["claim of a thousand, the first"] = done(
        anna, anna.claim(anna.account, 1000, tree.proof(anna.account))
    ).gas
    tree = SettlementTree([*accounts, (anna.account, 2000), (bert.account, 1000)])
    activate_root(testnet, tree.root, tree.total)
    gas["claim of a thousand"] = done(
        anna, anna.claim(anna.account, 2000, tree.proof(anna.account))
    ).gas
    print(gas)
    if os.environ.get("GAS_SNAPSHOT") == "write":
        GAS_SNAPSHOT.write_bytes(msgspec.json.format(msgspec.json.encode(gas)) + b"\n")
    assert gas == msgspec.json.decode(GAS_SNAPSHOT.read_bytes(), type=dict[str, int])
