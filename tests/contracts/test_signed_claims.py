"""Claims that an account signed, and claims of its sponsor."""

from __future__ import annotations

import pytest

from contracts.abi import call_data
from contracts.artifacts import (
    CLAIM_PRECOMPILE,
    REWARD_POOL,
)
from contracts.calldata import account_word, claim_proof_calldata
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import dev_key
from contracts.signers import claim_message, sign_claim
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import Address, address_of
from tests.contracts.testnet_controls import ControlledTestnet, call_raw
from tests.ports.chain_kit import ANNA, BERT, COLD, done, fund, settle


def test_a_signed_claim_pays_its_named_payout_once_on_this_chain_only(
    testnet: ControlledTestnet,
) -> None:
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(testnet, 1000)
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    proof, deadline = tree.proof(anna.account), testnet.chain(ANNA).head().at_s + 60
    chain, elsewhere = testnet.chain_id, address_of(b"\x42" * 20)
    own = claim_message(chain, anna.account, COLD, 300, deadline)

    def claim(
        signature: bytes, payout: Address = COLD, total: int = 300, until: int = deadline
    ) -> None:
        done(bert, bert.claim_to(anna.account, payout, total, until, proof, signature))

    good = sign_claim(dev_key(ANNA), own)
    wrong = {
        "the wrong key": sign_claim(dev_key(BERT), own),
        "another chain": sign_claim(
            dev_key(ANNA), claim_message(chain + 1, anna.account, COLD, 300, deadline)
        ),
        "another contract": sign_claim(
            dev_key(ANNA), claim_message(chain, anna.account, COLD, 300, deadline, pool=elsewhere)
        ),
        "another payout": sign_claim(
            dev_key(ANNA), claim_message(chain, anna.account, elsewhere, 300, deadline)
        ),
        "another total": sign_claim(
            dev_key(ANNA), claim_message(chain, anna.account, COLD, 301, deadline)
        ),
    }
    for what, signature in wrong.items():
        with pytest.raises(ChainRefused, match="pool: wrong signer"):
            claim(signature)
        assert bert.balance(COLD) == 0, what
    with pytest.raises(ChainRefused, match="signature: s is not low"):
        # The malleable twin of the signature (n - s) is refused.
        claim(good[:32] + b"\xff" * 32 + good[64:])
    with pytest.raises(ChainRefused, match="pool: wrong signer"):
        claim(good[:63])
    with pytest.raises(ChainRefused, match="pool: no account"):
        bert.claim_to("0x" + "0" * 40, COLD, 300, deadline, proof, b"")
    claim(good)
    assert (bert.balance(COLD), bert.claimed(anna.account)) == (300, 300)
    with pytest.raises(ChainRefused, match="pool: nothing to claim"):
        claim(good)
    tree = settle(testnet, {ANNA: 400, BERT: 600})
    proof = tree.proof(anna.account)
    with pytest.raises(ChainRefused, match="pool: signature expired"):
        claim(good)
    late = testnet.chain(ANNA).head().at_s + 60
    with pytest.raises(ChainRefused, match="pool: wrong signer"):
        claim(good, total=400, until=late)


def test_a_plain_claim_does_not_overtake_a_signed_one(testnet: ControlledTestnet) -> None:
    """The holder of Anna's old payout tries every function before her signed claim is mined."""
    anna, bert, owner = testnet.chain(ANNA), testnet.chain(BERT), testnet.chain("owner")
    assert isinstance(anna, ChainClient)
    assert isinstance(bert, ChainClient)
    fund(testnet, 1000)
    done(anna, anna.set_payout(bert.account))
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    proof, deadline = tree.proof(anna.account), anna.head().at_s + 600
    signed = sign_claim(
        dev_key(ANNA), claim_message(testnet.chain_id, anna.account, COLD, 300, deadline)
    )
    done(bert, bert.prove(anna.account, 300, proof))
    for to, data, reason in (
        (
            REWARD_POOL,
            call_data("claim(address,uint256,bytes32[])", anna.account, 300, list(proof)),
            "pool: not the account",
        ),
        (REWARD_POOL, call_data("claimRewardFor(address)", anna.account), "pool: not the account"),
        (
            CLAIM_PRECOMPILE,
            claim_proof_calldata(anna.account, 300, proof),
            "claim: not the account",
        ),
        (CLAIM_PRECOMPILE, account_word(anna.account), "claim: not the account"),
    ):
        for sender in (BERT, "owner"):
            with pytest.raises(ChainRefused, match=reason):
                call_raw(testnet, to, data, sender=sender)
    assert isinstance(owner, ChainClient)
    done(owner, owner.claim_to(anna.account, COLD, 300, deadline, proof, signed))
    assert anna.balance(COLD) == 300


def test_a_sponsor_claims_for_its_agent_to_the_payout(testnet: ControlledTestnet) -> None:
    anna, bert = testnet.chain(ANNA), testnet.chain(BERT)
    assert isinstance(anna, ChainClient)
    fund(testnet, 1000)
    done(anna, anna.set_payout(COLD))
    done(anna, anna.approve_sponsor(bert.account))
    tree = settle(testnet, {ANNA: 300, BERT: 700})
    data = call_data(
        "claim(address,uint256,bytes32[])", anna.account, 300, list(tree.proof(anna.account))
    )
    assert int(call_raw(testnet, REWARD_POOL, data, sender=BERT), 16) == 300
    done(bert, bert.claim(anna.account, 300, tree.proof(anna.account)))
    assert bert.balance(COLD) == 300
