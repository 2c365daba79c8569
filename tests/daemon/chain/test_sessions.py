"""A run's session from its creation to its end."""

from __future__ import annotations

import re

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from daemon.chain.home_runs import keep_manifest, run_folder
from daemon.wallet import password
from protocol.chain.port import NO_HASH, RunStatus
from protocol.run.manifest import seal
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import ROUNDS, CommandRunner
from tests.daemon.chain.session_checks import ANNA, BERT, CARO, PUBLISHED, on_chain, says, session
from tests.protocol.settlement.paid import PAID, PAID_RUN, wallet


def test_a_session_from_created_to_completed(commands: CommandRunner) -> None:
    commands.home(ANNA)
    commands.home(BERT)
    commands.home(CARO, rounds=1)
    nothing = commands.run(ANNA, "session", "show")
    assert (
        nothing.code,
        "state        none" in nothing.out,
        "hypergpud session create" in nothing.out,
    ) == (0, True, True)

    created = session(commands.run(ANNA, "session", "create", "--json"))
    assert (created["state"], created["owner"], created["is_own"]) == (
        "created",
        wallet(ANNA).address,
        True,
    )
    assert (created["manifest"], created["same_manifest"]) == (PUBLISHED.hex(), True)
    assert on_chain(commands) == RunStatus(
        run=PAID_RUN, state="created", owner=wallet(ANNA).address, manifest=PUBLISHED
    )

    active = commands.run(ANNA, "session", "activate", PAID_RUN.hex()[:6])
    assert (
        active.code,
        "state        active" in active.out,
        "(this home's wallet)" in active.out,
    ) == (0, True, True)
    assert re.search(r"transaction  0x[0-9a-f]{64}, fee 0\.\d+", active.out)
    assert on_chain(commands).state == "active"
    seen = commands.run(BERT, "session", "show", "--owner", wallet(ANNA).address).out
    assert (
        wallet(ANNA).address in seen,
        "(this home's wallet)" in seen,
        "✓ this home's" in seen,
    ) == (True, False, True)

    done = session(commands.run(ANNA, "session", "complete", "--json"))
    assert (done["state"], done["certificate"], done["certificate_round"]) == (
        "completed",
        ROUNDS[1].hash.hex(),
        2,
    )
    assert (on_chain(commands).state, on_chain(commands).certificate) == (
        "completed",
        ROUNDS[1].hash,
    )
    show = ("session", "show", "--owner", wallet(ANNA).address.lower())
    assert "round 2, the last of this home" in commands.run(BERT, *show).out
    assert "NOT among this home's certificates" in commands.run(CARO, *show).out
    paid_homes.add_certificates(commands.homes[BERT], ROUNDS[2:])
    assert "round 2; this home's last is round 3" in commands.run(BERT, *show).out


def test_a_cancelled_run_stays_cancelled_and_its_reason_fits_the_chain(
    commands: CommandRunner,
) -> None:
    commands.home(ANNA)
    assert commands.run(ANNA, "session", "create").code == 0
    # The reason is missing.
    assert commands.run(ANNA, "session", "cancel").code == 2
    says(
        commands.run(ANNA, "session", "cancel", "--reason", " \n"),
        2,
        "[REASON]",
        "1 to 96 bytes",
        "this has 0",
    )
    says(
        commands.run(ANNA, "session", "cancel", "--reason", "ü" * 49), 2, "[REASON]", "this has 98"
    )
    assert on_chain(commands).state == "created"
    cancelled = commands.run(ANNA, "session", "cancel", "--reason", "ü" * 48)
    assert (
        cancelled.code,
        "state        cancelled" in cancelled.out,
        "certificate" in cancelled.out,
    ) == (0, True, False)
    assert (on_chain(commands).state, on_chain(commands).certificate) == ("cancelled", NO_HASH)
    for name, *more in (("activate",), ("complete",), ("cancel", "--reason", "again")):
        says(commands.run(ANNA, "session", name, *more), 1, "cancelled already")


def test_a_run_is_completed_only_with_a_certificate_of_this_home(
    commands: CommandRunner,
) -> None:
    commands.home(ANNA, rounds=0)
    commands.run(ANNA, "session", "create")
    commands.run(ANNA, "session", "activate")
    says(
        commands.run(ANNA, "session", "complete"),
        1,
        "[NO_CERTIFICATES]",
        "hypergpud session cancel",
    )
    paid_homes.add_certificates(commands.homes[ANNA], ROUNDS)
    for wrong in (ROUNDS[0].hash.hex()[::-1], "ab" * 32, "0x", ""):
        says(
            commands.run(ANNA, "session", "complete", "--certificate", wrong),
            2,
            "No certificate",
            "this home holds 3",
            ROUNDS[2].hash.hex()[:12],
        )

    # The last certificate of a damaged chain is unknown, but a readable one may be named.
    file = run_folder(commands.homes[ANNA], PAID_RUN) / "certificates"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    says(
        commands.run(ANNA, "session", "complete"),
        1,
        "[CERTIFICATES]",
        "damaged behind number 2",
        "--certificate HASH",
    )
    says(
        commands.run(ANNA, "session", "complete", "--certificate", ROUNDS[2].hash.hex()),
        2,
        "this home holds 2",
    )
    says(commands.run(ANNA, "session", "show"), 0, "damaged behind number 2")
    assert on_chain(commands).state == "active"
    named = commands.run(
        ANNA, "session", "complete", "--certificate", "0x" + ROUNDS[0].hash.hex()[:8].upper()
    )
    assert (named.code, on_chain(commands).certificate) == (0, ROUNDS[0].hash)
    assert "round 1; this home's last is round 2" in named.out


def test_show_needs_no_wallet_and_reports_another_manifest(
    commands: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.home(ANNA)
    bert = commands.world.client(wallet(BERT).private_key())
    assert bert.wait(bert.create_run(PAID_RUN, b"m" * 32), 10).done
    nothing = commands.run(ANNA, "session", "show").out
    assert f"none: {wallet(ANNA).address} has no session for this run" in nothing, (
        "a stranger's session is not taken for this home's"
    )
    show = ("session", "show", "--owner", wallet(BERT).address)
    says(commands.run(ANNA, "session", "show", "--owner", "0x12"), 2, "[ADDRESS]")
    (commands.homes[ANNA] / "wallet.json").write_text("{")
    says(commands.run(ANNA, *show), 0, "wallet.json cannot be used")
    (commands.homes[ANNA] / "wallet.json").unlink()
    monkeypatch.delenv(password.VARIABLE)
    says(commands.run(ANNA, "session", "show"), 2, "[OWNER]", "session show --owner ADDRESS")
    shown = commands.run(ANNA, *show, "--json").record
    assert (shown["state"], shown["owner"], shown["is_own"]) == (
        "created",
        wallet(BERT).address,
        False,
    )
    assert (shown["manifest"], shown["own_manifest"], shown["same_manifest"]) == (
        (b"m" * 32).hex(),
        PUBLISHED.hex(),
        False,
    )
    text = commands.run(ANNA, *show).out
    assert ("NOT this home's" in text, f"0x{PUBLISHED.hex()} in this home" in text) == (True, True)
    says(commands.run(ANNA, "session", "create"), 5, "[NO_WALLET]")


def test_a_run_is_selected_by_its_id(commands: CommandRunner) -> None:
    commands.home(ANNA)
    home = commands.homes[ANNA]
    says(
        commands.run(ANNA, "session", "show", "xyz"),
        2,
        "no run whose id begins with 'xyz'",
        f"{PAID.name} ({PAID_RUN.hex()[:12]})",
    )
    unpaid = seal(replace(PAID, name="unpaid", chain="none", settlement=UNSET))
    keep_manifest(home, unpaid)
    keep_manifest(home, seal(replace(PAID, name="elsewhere", chain="plumise")))
    says(
        commands.run(ANNA, "session", "show"),
        2,
        "several runs",
        "name the run: hypergpud session show RUN",
    )
    says(commands.run(ANNA, "session", "show", ""), 2, "several runs", "give more digits of the id")
    says(
        commands.run(ANNA, "session", "show", unpaid.run.hex()),
        2,
        "'unpaid' has no session",
        "its manifest names 'none'",
    )
    assert commands.run(ANNA, "session", "show", PAID_RUN.hex()[:12].upper()).code == 0
    plumise = seal(replace(PAID, name="elsewhere", chain="plumise"))
    says(
        commands.run(ANNA, "session", "create", plumise.run.hex()),
        2,
        "its manifest names 'plumise'",
    )
    commands.homes[9] = commands.root / "empty"
    says(commands.run(9, "session", "show"), 2, "has not been in a run yet", "hypergpud start")


def test_the_hash_of_the_published_manifest_covers_its_signature() -> None:
    signed = seal(PAID)
    assert signed.published != signed.run
    assert replace(signed, signature=b"s").published != signed.published
    assert replace(signed, signature=b"s").run == signed.run
