"""The contracts themselves: raw words, sponsors, signed claims, proofs of OpenZeppelin's package, a
thousand accounts, and what gas it takes.

What a client never sends is sent here by hand. On both chains, like the port's suite.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from contracts.abi import call_data
from contracts.artifacts import (
    AGENT_REGISTRY,
    CLAIM_PRECOMPILE,
    HEARTBEAT_PRECOMPILE,
    REGISTER_PRECOMPILE,
    REWARD_POOL,
)
from contracts.calldata import account_word, claim_proof_calldata, number_word, register_calldata
from contracts.chain_client import ChainClient
from contracts.devnet.genesis import dev_account, dev_key
from contracts.signers import claim_message, sign_claim
from protocol.chain.keccak import Address, account_bytes, address_of, checked_address, keccak256
from protocol.chain.port import NO_HASH, ChainRefused, Proposal
from protocol.settlement.merkle_tree import SettlementTree
from tests.contracts.ground import DELAY_S, EPOCH_S, EvmGround
from tests.contracts.levers import Levers, called
from tests.ports.chain_suite import ANNA, BERT, CERTIFICATE, COLD, SETTLERS, done, fund, settle

GAS_SNAPSHOT = Path(__file__).parent / "gas.json"
VECTORS = Path(__file__).parents[1] / "protocol" / "vectors" / "merkle_tree.json"


class Entry(msgspec.Struct):
    account: str
    total: int
    proof: list[str]


class Tree(msgspec.Struct):
    root: str
    entries: list[Entry]


class Vectors(msgspec.Struct):
    trees: list[Tree]


def activate(ground: Levers, root: bytes, total: int) -> None:
    """Makes a root the active one that nobody's tree stands behind."""
    ground.advance(EPOCH_S)
    anna = ground.chain(ANNA)
    proposal = Proposal(epoch=anna.pool().epoch - 1, root=root, total=total)
    for name in SETTLERS[:2]:
        settler = ground.chain(name)
        done(settler, settler.propose(proposal))
    ground.advance(DELAY_S)
    done(anna, anna.activate())


def called_by(ground: Levers, account: Address, total: int, proof: Sequence[bytes]) -> str:
    """What a claim of an account would answer whose key nobody here has."""
    data = call_data("claim(address,uint256,bytes32[])", account, total, list(proof))
    asked = {"from": account, "to": REWARD_POOL, "data": "0x" + data.hex()}
    return str(ground.transport("eth_call", (asked, "latest")))


# -------------------------------------------------------------------- raw words

WORD = bytes(32)


@pytest.mark.parametrize(
    ("to", "data", "reason"),
    [
        (REGISTER_PRECOMPILE, WORD * 2, "register: too short"),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(1),
            "register: length does not fit the capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(0) + WORD * 2,
            "register: length does not fit the capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word(17) + WORD * 17,
            "register: too many capabilities",
        ),
        (
            REGISTER_PRECOMPILE,
            WORD * 2 + number_word((1 << 256) - 1) + WORD,
            "register: too many capabilities",
        ),
        (REGISTER_PRECOMPILE, WORD * 3 + b"\xff" * 32, "register: not an address"),
        (REGISTER_PRECOMPILE, WORD * 3 + WORD, "registry: no agent"),
        (HEARTBEAT_PRECOMPILE, WORD[:31], "heartbeat: 0, 1 or 3 words"),
        (HEARTBEAT_PRECOMPILE, WORD * 2, "heartbeat: 0, 1 or 3 words"),
        (HEARTBEAT_PRECOMPILE, b"\x01" + WORD[1:], "heartbeat: not an address"),
        (HEARTBEAT_PRECOMPILE, b"", "registry: not registered"),
        (CLAIM_PRECOMPILE, WORD[:31], "claim: not whole words"),
        (CLAIM_PRECOMPILE, WORD * 67, "claim: too long"),
        (CLAIM_PRECOMPILE, b"\x01" + WORD[1:], "claim: not an address"),
        (CLAIM_PRECOMPILE, b"", "pool: nothing was proved"),
        (CLAIM_PRECOMPILE, WORD * 3, "pool: wrong proof"),
    ],
)
def test_words_that_are_none_are_refused(
    ground: Levers, to: Address, data: bytes, reason: str
) -> None:
    with pytest.raises(ChainRefused, match=reason):
        called(ground, to, data)


@pytest.mark.parametrize("to", [REGISTER_PRECOMPILE, HEARTBEAT_PRECOMPILE, CLAIM_PRECOMPILE])
def test_money_sent_to_a_precompile_comes_back(ground: Levers, to: Address) -> None:
    with pytest.raises(ChainRefused):
        called(
            ground,
            to,
            b"" if to != REGISTER_PRECOMPILE else register_calldata("", NO_HASH, []),
            value=1,
        )


def test_only_the_precompiles_change_the_registry(ground: Levers) -> None:
    account = dev_account(ANNA)
    beat = call_data(
        "heartbeat(address,address,bool,uint256,bytes32)", account, account, True, 5, NO_HASH
    )
    with pytest.raises(ChainRefused, match="registry: only 0x22 beats"):
        called(ground, AGENT_REGISTRY, beat)
    register = call_data(
        "register(address,address,bytes32,bytes32,bytes32[])",
        account,
        account,
        NO_HASH,
        NO_HASH,
        [],
    )
    with pytest.raises(ChainRefused, match="registry: only 0x21 registers"):
        called(ground, AGENT_REGISTRY, register)


def test_an_approved_sponsor_registers_and_beats_for_an_agent_until_it_is_taken_back(
    ground: Levers,
) -> None:
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    assert isinstance(anna, ChainClient)
    done(anna, anna.approve_sponsor(bert.account))
    done(bert, bert.register("anna's machine", capabilities=[b"k" * 32] * 16, agent=anna.account))
    done(bert, bert.heartbeat(9, CERTIFICATE, agent=anna.account))
    found = anna.agent(anna.account)
    assert (found.name, found.samples, found.certificate) == ("anna's machine", 9, CERTIFICATE)
    assert not bert.agent(bert.account).registered
    done(anna, anna.approve_sponsor("0x" + "0" * 40))
    with pytest.raises(ChainRefused, match="registry: not a sponsor"):
        bert.heartbeat(10, CERTIFICATE, agent=anna.account)


def test_a_plain_heartbeat_keeps_the_last_figures(ground: Levers) -> None:
    anna, plain = ground.chain(ANNA), ground.client(ANNA, profile="plumise")
    done(anna, anna.register("anna"))
    done(anna, anna.heartbeat(9, CERTIFICATE))
    ground.advance(200)
    done(plain, plain.heartbeat(0, NO_HASH))
    found = anna.agent(anna.account)
    assert (found.samples, found.certificate) == (9, CERTIFICATE)
    assert found.last_heartbeat_s >= ground.chain(ANNA).head().at_s


# -------------------------------------------------------------------- claims that are signed


def test_a_signed_claim_pays_where_its_signer_said_once_here_and_nowhere_else(
    ground: Levers,
) -> None:
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(ground, 1000)
    tree = settle(ground, {ANNA: 300, BERT: 700})
    proof, deadline = tree.proof(anna.account), ground.chain(ANNA).head().at_s + 60
    chain, elsewhere = ground.chain_id, address_of(b"\x42" * 20)
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
    with pytest.raises(ChainRefused, match="ecdsa: invalid signature"):
        # The other s of the same signature is no second one.
        claim(good[:32] + b"\xff" * 32 + good[64:])
    with pytest.raises(ChainRefused, match="pool: wrong signer"):
        claim(good[:63])
    with pytest.raises(ChainRefused, match="pool: no account"):
        bert.claim_to("0x" + "0" * 40, COLD, 300, deadline, proof, b"")
    claim(good)
    assert (bert.balance(COLD), bert.claimed(anna.account)) == (300, 300)
    with pytest.raises(ChainRefused, match="pool: nothing to claim"):
        claim(good)
    tree = settle(ground, {ANNA: 400, BERT: 600})
    proof = tree.proof(anna.account)
    with pytest.raises(ChainRefused, match="pool: signature expired"):
        claim(good)
    late = ground.chain(ANNA).head().at_s + 60
    with pytest.raises(ChainRefused, match="pool: wrong signer"):
        claim(good, total=400, until=late)


def test_a_signed_claim_is_not_overtaken_by_a_plain_one(ground: Levers) -> None:
    """The holder of Anna's old payout watches the chain, and tries every door before her signed
    claim is mined.
    """
    anna, bert, owner = ground.chain(ANNA), ground.chain(BERT), ground.chain("owner")
    assert isinstance(anna, ChainClient)
    assert isinstance(bert, ChainClient)
    fund(ground, 1000)
    done(anna, anna.set_payout(bert.account))
    tree = settle(ground, {ANNA: 300, BERT: 700})
    proof, deadline = tree.proof(anna.account), anna.head().at_s + 600
    signed = sign_claim(
        dev_key(ANNA), claim_message(ground.chain_id, anna.account, COLD, 300, deadline)
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
                called(ground, to, data, sender=sender)
    done(owner, owner.claim_to(anna.account, COLD, 300, deadline, proof, signed))  # type: ignore[attr-defined]  # the real client's own
    assert anna.balance(COLD) == 300


def test_a_sponsor_claims_for_its_agent_to_the_payout(ground: Levers) -> None:
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    assert isinstance(anna, ChainClient)
    fund(ground, 1000)
    done(anna, anna.set_payout(COLD))
    done(anna, anna.approve_sponsor(bert.account))
    tree = settle(ground, {ANNA: 300, BERT: 700})
    data = call_data(
        "claim(address,uint256,bytes32[])", anna.account, 300, list(tree.proof(anna.account))
    )
    assert int(called(ground, REWARD_POOL, data, sender=BERT), 16) == 300
    done(bert, bert.claim(anna.account, 300, tree.proof(anna.account)))
    assert bert.balance(COLD) == 300


# -------------------------------------------------------------------- roots


def test_proofs_of_openzeppelins_package_are_accepted() -> None:
    """All of its trees' leaves, asked of the contract; the totals are large, so the pool is given
    that much.
    """

    accepted = 0
    for tree in msgspec.json.decode(VECTORS.read_bytes(), type=Vectors, strict=False).trees:
        fresh = EvmGround()
        owner = fresh.chain("owner")
        total = sum(entry.total for entry in tree.entries)
        small = [entry for entry in tree.entries if entry.total < 10**18]
        covered = min(total, 10**20)
        done(owner, owner.fund(covered))
        activate(fresh, bytes.fromhex(tree.root[2:]), covered)
        for entry in small:
            who = checked_address(entry.account)
            proof = [bytes.fromhex(step[2:]) for step in entry.proof]
            assert owner.claimable(who, entry.total, proof) == entry.total
            assert owner.claimable(who, entry.total + 1, proof) == 0
            accepted += 1
        entry = small[0]
        proof = [bytes.fromhex(step[2:]) for step in entry.proof]
        assert int(called_by(fresh, entry.account, entry.total, proof), 16) == entry.total
    assert accepted >= 40


def test_an_inner_node_is_no_leaf_on_chain(ground: Levers) -> None:
    """The 64 bytes below a root, offered as an account and its total: with a single hash they are
    the root, and need no proof.

    The left child begins with twelve zeros, as an account's word does. Of honest trees one in 2**96
    has such a child; settlers who choose what they call leaves have it at once.
    """
    fund(ground, 1000)
    anna = ground.chain(ANNA)
    left, right = bytes(12) + account_bytes(anna.account), number_word(1000)
    activate(ground, keccak256(left + right), 1000)
    assert anna.claimable(anna.account, 1000, ()) == 0
    with pytest.raises(ChainRefused, match="pool: wrong proof"):
        anna.claim(anna.account, 1000, ())


def test_a_thousand_accounts_in_one_root(ground: Levers) -> None:
    accounts = [address_of(number.to_bytes(20, "big")) for number in range(0x10000, 0x10000 + 1000)]
    tree = SettlementTree((account, 1000 + place) for place, account in enumerate(accounts))
    owner = ground.chain("owner")
    done(owner, owner.fund(tree.total))
    activate(ground, tree.root, tree.total)
    for account in accounts[::111]:
        assert (
            int(called_by(ground, account, tree.totals[account], tree.proof(account)), 16)
            == tree.totals[account]
        )


def test_a_root_whose_leaves_are_more_than_it_says_pays_no_more_than_it_says(
    ground: Levers,
) -> None:
    """Two of three settlers lie about the sum: what others will earn later is not touched."""
    fund(ground, 1000)
    tree = SettlementTree([(dev_account(ANNA), 300), (dev_account(BERT), 700)])
    activate(ground, tree.root, 400)
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    with pytest.raises(ChainRefused, match="pool: beyond the root's total"):
        bert.claim(bert.account, 700, tree.proof(bert.account))
    assert bert.pool().balance == 700


def test_one_account_that_takes_no_money_blocks_nobody(ground: Levers) -> None:
    fund(ground, 1000)
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    done(anna, anna.set_payout(HEARTBEAT_PRECOMPILE))  # a contract that refuses money
    tree = settle(ground, {ANNA: 300, BERT: 700})
    with pytest.raises(ChainRefused, match="pool: payout refuses money"):
        anna.claim(anna.account, 300, tree.proof(anna.account))
    done(bert, bert.claim(bert.account, 700, tree.proof(bert.account)))
    done(anna, anna.set_payout(COLD))
    done(anna, anna.claim(anna.account, 300, tree.proof(anna.account)))
    assert anna.balance(COLD) == 300


def test_what_was_proved_under_an_older_root_is_not_paid(ground: Levers) -> None:
    anna, bert = ground.client(ANNA, profile="plumise"), ground.chain(BERT)
    assert isinstance(bert, ChainClient)
    fund(ground, 1000)
    done(anna, anna.register("anna"))
    tree = settle(ground, {ANNA: 300, BERT: 700})
    done(bert, bert.prove(anna.account, 300, tree.proof(anna.account)))
    assert anna.claimable(anna.account, 0, ()) == 300
    tree = settle(ground, {ANNA: 200, BERT: 800})
    assert anna.claimable(anna.account, 0, ()) == 0
    with pytest.raises(ChainRefused, match="pool: nothing was proved"):
        anna.claim(anna.account, 0, ())
    done(bert, bert.prove(anna.account, 200, tree.proof(anna.account)))
    done(anna, anna.claim(anna.account, 0, ()))
    assert bert.claimed(anna.account) == 200
    assert bert.pool().balance == 800


def test_settlers_are_named_by_the_owner_alone_and_sensibly(ground: Levers) -> None:
    one, two = dev_account(ANNA), dev_account(BERT)
    named = "set_settlers(address[],uint256)"
    with pytest.raises(ChainRefused, match="ownable: caller is not the owner"):
        called(ground, REWARD_POOL, call_data(named, [one], 1))
    for settlers, needed, reason in (
        ([one], 0, "pool: cannot be reached"),
        ([one], 2, "pool: cannot be reached"),
        ([one, two, one], 2, "pool: settler twice or none"),
    ):
        with pytest.raises(ChainRefused, match=reason):
            called(ground, REWARD_POOL, call_data(named, settlers, needed), sender="owner")
    called(ground, REWARD_POOL, call_data(named, [one, two], 2), sender="owner")


def test_a_long_reason_is_cut_between_two_characters(ground: Levers) -> None:
    anna = ground.chain(ANNA)
    run = b"r" * 32
    done(anna, anna.create_run(run, b"m" * 32))
    done(anna, anna.cancel_run(run, "x" + "\u00fc" * 60))  # 121 bytes; the contract takes 96
    assert anna.run(run, anna.account).state == "cancelled"


# -------------------------------------------------------------------- gas


def test_gas_is_what_the_snapshot_says(ground: Levers) -> None:
    """GAS_SNAPSHOT=write writes it anew.

    Exact, since the EVM is: any change of the contracts' cost is seen and said.
    """
    anna, bert = ground.chain(ANNA), ground.chain(BERT)
    gas: dict[str, int] = {"register": done(anna, anna.register("volunteer")).gas}
    # A beat within the second of the one before is cheaper.
    ground.advance(3)
    gas["heartbeat, the first"] = done(anna, anna.heartbeat(1, CERTIFICATE)).gas
    ground.advance(3)
    gas["heartbeat"] = done(anna, anna.heartbeat(2, b"d" * 32)).gas
    ground.advance(3)
    plain = ground.client(ANNA, profile="plumise")
    gas["heartbeat without figures"] = done(plain, plain.heartbeat(0, NO_HASH)).gas
    fund(ground, 10**9)
    accounts = [
        (address_of(bytes([7]) * 18 + number.to_bytes(2, "big")), 500) for number in range(998)
    ]
    tree = SettlementTree([*accounts, (anna.account, 1000), (bert.account, 1000)])
    activate(ground, tree.root, tree.total)
    gas["claim of a thousand, the first"] = done(
        anna, anna.claim(anna.account, 1000, tree.proof(anna.account))
    ).gas
    tree = SettlementTree([*accounts, (anna.account, 2000), (bert.account, 1000)])
    activate(ground, tree.root, tree.total)
    gas["claim of a thousand"] = done(
        anna, anna.claim(anna.account, 2000, tree.proof(anna.account))
    ).gas
    print(gas)
    if os.environ.get("GAS_SNAPSHOT") == "write":
        GAS_SNAPSHOT.write_bytes(msgspec.json.format(msgspec.json.encode(gas)) + b"\n")
    assert gas == msgspec.json.decode(GAS_SNAPSHOT.read_bytes(), type=dict[str, int])
