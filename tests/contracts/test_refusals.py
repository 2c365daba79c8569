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
from tests.contracts.ground import EPOCH_S, START_S, EvmGround
from tests.contracts.levers import Levers, called
from tests.contracts.roots import activate_root
from tests.ports.chain_kit import ANNA, BERT, COLD, SETTLERS, done, fund, propose, settle

ANYTHING = b"x" * 32


def test_what_is_empty_is_refused(ground: Levers) -> None:
    fund(ground, 10)
    ground.advance(EPOCH_S)
    owner, epoch = ground.chain("owner"), ground.chain("owner").pool().epoch - 1
    tree = settle(ground, {ANNA: 3, BERT: 7})
    anna, deadline = dev_account(ANNA), owner.head().at_s + 600
    nowhere = sign_claim(
        dev_key(ANNA), claim_message(ground.chain_id, anna, ZERO_ADDRESS, 3, deadline)
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
            called(ground, to, data, sender=sender)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"epoch_s": 0}, "pool: no epoch length"),
        ({"epoch_s": 367 * 86400}, "pool: epoch longer than a year"),
        ({"delay_s": 367 * 86400}, "pool: delay longer than a year"),
        ({"delay_s": (1 << 256) - 1}, "pool: delay longer than a year"),
    ],
)
def test_a_pool_without_epochs_or_with_endless_ones_is_not_made(
    terms: dict[str, int], reason: str
) -> None:
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


def test_a_signature_is_no_proof_and_a_wrong_proof_is_not_kept(ground: Levers) -> None:
    """Who signs for more than it earned is paid nothing, and nothing is left for a claim without a
    proof.
    """
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(ground, 1000)
    tree = settle(ground, {ANNA: 300, BERT: 700})
    deadline = anna.head().at_s + 600
    greedy = sign_claim(
        dev_key(ANNA), claim_message(ground.chain_id, anna.account, COLD, 1000, deadline)
    )
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        bert.claim_to(anna.account, COLD, 1000, deadline, tree.proof(anna.account), greedy)
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        bert.prove(anna.account, 1000, tree.proof(anna.account))


# -------------------------------------------------------------------- a payout that is a contract


def coming_back(data: bytes) -> bytes:
    """Creation code of a contract that, sent money, calls the pool with `data` and keeps in slot 0
    whether that succeeded: 1 no, 2 yes.
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


def deployed(ground: EvmGround, code: bytes) -> Address:
    """Where it is."""
    signer = signer_of(dev_key("nobody else's"))
    ground.devnet.submit(
        bytes(
            signer_of(dev_key("owner"))
            .sign_transaction(
                fee_of(ground, "owner") | {"to": signer.address, "value": 10**18, "gas": 21_000}
            )
            .raw_transaction
        )
    )
    ground.devnet.mine()
    made = signer.sign_transaction(
        fee_of(ground, "nobody else's") | {"to": "", "data": code, "value": 0, "gas": 1_000_000}
    )
    ground.devnet.submit(bytes(made.raw_transaction))
    ground.devnet.mine()
    # CREATE by nonce 0.
    place = keccak256(bytes([0xD6, 0x94]) + account_bytes(signer.address) + b"\x80")[12:]
    assert ground.devnet.code(place)
    return "0x" + place.hex()


def fee_of(ground: EvmGround, name: str) -> dict[str, int]:
    nonce = ground.devnet.nonce(account_bytes(dev_account(name)))
    return {
        "chainId": ground.chain_id,
        "nonce": nonce,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 1,
    }


@pytest.mark.parametrize("again", ["claim", "claim_to", "claimRewardFor", "claimReward"])
def test_a_payout_that_comes_back_for_more_gets_nothing(again: str) -> None:
    """Inside Anna's claim her payout claims what is due to Bert, or to itself: each door of the
    pool is locked while another one is open.
    """
    ground = EvmGround()
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    assert isinstance(anna, ChainClient)
    greedy = keccak256(bytes([0xD6, 0x94]) + account_bytes(dev_account("nobody else's")) + b"\x80")[
        12:
    ]
    tree = SettlementTree([(anna.account, 300), (bert.account, 500), ("0x" + greedy.hex(), 200)])
    until = START_S + 100 * EPOCH_S
    signed = sign_claim(
        dev_key(BERT), claim_message(ground.chain_id, bert.account, COLD, 500, until)
    )
    proof = list(tree.proof(bert.account))
    place = deployed(
        ground,
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
    fund(ground, 1000)
    activate_root(ground, tree.root, tree.total)
    for account in (bert.account, place):
        done(anna, anna.prove(account, tree.totals.get(account, 200), tree.proof(account)))
    done(anna, anna.set_payout(place))
    assert isinstance(bert, ChainClient)
    # So that nothing but the lock is in its way.
    done(bert, bert.approve_sponsor(place))
    before = ground.devnet.balance(greedy)
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    assert ground.devnet.balance(greedy) - before == 300
    assert ground.devnet.storage(greedy, 0) == 1, "the pool let it in again"
    assert (bert.claimed(bert.account), bert.claimed(place)) == (0, 0)


def test_votes_for_a_disputed_root_count_no_more(ground: Levers) -> None:
    """One of the two that voted for it votes again: that is one vote, not two."""
    fund(ground, 1000)
    propose(ground, {ANNA: 300})
    first, third = ground.chain(SETTLERS[0]), ground.chain(SETTLERS[2])
    pending = first.pool().pending
    assert pending is not None
    done(third, third.dispute(pending, "no"))
    done(first, first.propose(pending))
    assert first.pool().pending is None
