"""Refusals of the contracts beyond the port's suite.

They are empty values, a signature without a proof, and a payout that calls again.
"""

from __future__ import annotations

import pytest

from contracts.abi import call_data
from contracts.artifacts import AGENT_REGISTRY, REWARD_POOL, SESSIONS
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import GenesisSettings, dev_account, dev_key, genesis_of
from contracts.signers import claim_message, sign_claim, signer_of
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import ZERO_ADDRESS, Address, account_bytes, keccak256
from protocol.chain.port import NO_HASH
from protocol.settlement.merkle_tree import SettlementTree
from tests.contracts.roots import activate_root
from tests.contracts.testnet_controls import ControlledTestnet, call_raw
from tests.contracts.testnets import EPOCH_S, START_S, EvmTestnet
from tests.ports.chain_kit import ANNA, BERT, COLD, SETTLERS, done, fund, propose, settle

ANYTHING = b"x" * 32


def test_empty_values_are_refused(testnet: ControlledTestnet) -> None:
    fund(testnet, 10)
    testnet.advance(EPOCH_S)
    owner, epoch = testnet.chain("owner"), testnet.chain("owner").pool().epoch - 1
    tree = settle(testnet, {ANNA: 3, BERT: 7})
    anna, deadline = dev_account(ANNA), owner.head().at_s + 600
    nowhere = sign_claim(
        dev_key(ANNA), claim_message(testnet.chain_id, anna, ZERO_ADDRESS, 3, deadline)
    )
    claim_to = "claim_to(address,address,uint256,uint256,bytes32[],bytes)"
    for to, data, sender, reason in (
        (
            AGENT_REGISTRY,
            call_data("set_payout(address)", ZERO_ADDRESS),
            ANNA,
            "registry: no payout",
        ),
        (REWARD_POOL, call_data("fund()"), "owner", "pool: nothing sent"),
        (
            REWARD_POOL,
            call_data("propose(uint256,bytes32,uint256,bytes32)", epoch + 1, NO_HASH, 10, ANYTHING),
            SETTLERS[0],
            "pool: no root",
        ),
        (
            REWARD_POOL,
            call_data(claim_to, anna, ZERO_ADDRESS, 3, deadline, list(tree.proof(anna)), nowhere),
            BERT,
            "pool: no payout",
        ),
        (
            SESSIONS,
            call_data("create(bytes32,bytes32)", NO_HASH, ANYTHING),
            ANNA,
            "sessions: no run",
        ),
    ):
        with pytest.raises(ChainRefused, match=reason):
            call_raw(testnet, to, data, sender=sender)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"epoch_s": 0}, "pool: no epoch length"),
        ({"epoch_s": 367 * 86400}, "pool: epoch longer than a year"),
        ({"delay_s": 367 * 86400}, "pool: delay longer than a year"),
        ({"delay_s": (1 << 256) - 1}, "pool: delay longer than a year"),
    ],
)
def test_a_pool_needs_epochs_of_a_valid_length(terms: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        genesis_of(
            GenesisSettings(
                owner=dev_account("owner"),
                settlers=(dev_account(ANNA),),
                needed=1,
                start_s=START_S,
                **terms,
            )
        )  # type: ignore[arg-type]


def test_a_signature_replaces_no_proof_and_a_wrong_proof_is_not_kept(
    testnet: ControlledTestnet,
) -> None:
    """A signed claim for more than was earned pays nothing, and its proof is not remembered."""
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(testnet, 1000)
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    deadline = anna.head().at_s + 600
    greedy = sign_claim(
        dev_key(ANNA), claim_message(testnet.chain_id, anna.account, COLD, 1000, deadline)
    )
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        bert.claim_to(anna.account, COLD, 1000, deadline, tree.proof(anna.account), greedy)
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        bert.prove(anna.account, 1000, tree.proof(anna.account))


# -------------------------------------------------------------------- a payout that is a contract


def coming_back(data: bytes) -> bytes:
    """Return the creation code of a contract that calls the pool again when it receives money.

    The contract sends `data`, and stores in slot 0 whether the call succeeded: 1 no, 2 yes.
    """
    size = len(data).to_bytes(2, "big")
    # CODECOPY(0, end of this code, size); SSTORE(0, 1 + CALL(gas, pool, 0, 0, size, 0, 0)); STOP
    before = (
        bytes.fromhex("61" + size.hex() + "61")
        + b"\0\0"
        + bytes.fromhex("600039" + "6000600061" + size.hex() + "60006000")
    )
    body = (
        before
        + bytes.fromhex("61")
        + account_bytes(REWARD_POOL)[-2:]
        + bytes.fromhex("5af1" + "600101" + "600055" + "00")
    )
    at = len(body).to_bytes(2, "big")
    body = body[:4] + at + body[6:]
    runtime = body + data
    length = len(runtime).to_bytes(2, "big").hex()
    return bytes.fromhex("61" + length + "80600c6000396000f3") + runtime


def deployed(testnet: EvmTestnet, code: bytes) -> Address:
    """Deploy the code, and return the contract's address."""
    signer = signer_of(dev_key("nobody else's"))
    testnet.devnet.submit(
        bytes(
            signer_of(dev_key("owner"))
            .sign_transaction(
                fee_of(testnet, "owner") | {"to": signer.address, "value": 10**18, "gas": 21_000}
            )
            .raw_transaction
        )
    )
    testnet.devnet.mine()
    made = signer.sign_transaction(
        fee_of(testnet, "nobody else's") | {"to": "", "data": code, "value": 0, "gas": 1_000_000}
    )
    testnet.devnet.submit(bytes(made.raw_transaction))
    testnet.devnet.mine()
    # The address is that of CREATE with nonce 0.
    place = keccak256(bytes([0xD6, 0x94]) + account_bytes(signer.address) + b"\x80")[12:]
    assert testnet.devnet.code(place)
    return "0x" + place.hex()


def fee_of(testnet: EvmTestnet, name: str) -> dict[str, int]:
    nonce = testnet.devnet.nonce(account_bytes(dev_account(name)))
    return {
        "chainId": testnet.chain_id,
        "nonce": nonce,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 1,
    }


@pytest.mark.parametrize("again", ["claim", "claim_to", "claimRewardFor", "claimReward"])
def test_a_reentrant_payout_gets_nothing(again: str) -> None:
    """Every function of the pool is locked while another one runs.

    Within Anna's claim, her payout contract claims Bert's share or its own.
    """
    testnet = EvmTestnet()
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(anna, ChainClient)
    greedy = keccak256(bytes([0xD6, 0x94]) + account_bytes(dev_account("nobody else's")) + b"\x80")[
        12:
    ]
    tree = SettlementTree([(anna.account, 300), (bert.account, 500), ("0x" + greedy.hex(), 200)])
    until = START_S + 100 * EPOCH_S
    signed = sign_claim(
        dev_key(BERT), claim_message(testnet.chain_id, bert.account, COLD, 500, until)
    )
    proof = list(tree.proof(bert.account))
    place = deployed(
        testnet,
        coming_back(
            {
                "claim": call_data("claim(address,uint256,bytes32[])", bert.account, 500, proof),
                "claim_to": call_data(
                    "claim_to(address,address,uint256,uint256,bytes32[],bytes)",
                    bert.account,
                    COLD,
                    500,
                    until,
                    proof,
                    signed,
                ),
                "claimRewardFor": call_data("claimRewardFor(address)", bert.account),
                "claimReward": call_data("claimReward()"),
            }[again]
        ),
    )
    assert account_bytes(place) == greedy
    fund(testnet, 1000)
    activate_root(testnet, tree.root, tree.total)
    for account in (bert.account, place):
        done(anna, anna.prove(account, tree.totals.get(account, 200), tree.proof(account)))
    done(anna, anna.set_payout(place))
    assert isinstance(bert, ChainClient)
    # Only the lock can stop the second call.
    done(bert, bert.approve_sponsor(place))
    before = testnet.devnet.balance(greedy)
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    assert testnet.devnet.balance(greedy) - before == 300
    assert testnet.devnet.storage(greedy, 0) == 1, "the pool let it in again"
    assert (bert.claimed(bert.account), bert.claimed(place)) == (0, 0)


def test_votes_for_a_disputed_root_no_longer_count(testnet: ControlledTestnet) -> None:
    """If one of its two voters votes again, the root has one vote."""
    fund(testnet, 1000)
    propose(testnet, {ANNA: 300})
    first, third = testnet.chain(SETTLERS[0]), testnet.chain(SETTLERS[2])
    pending = first.pool().pending
    assert pending is not None
    done(third, third.dispute(pending, "no"))
    done(first, first.propose(pending))
    assert first.pool().pending is None
