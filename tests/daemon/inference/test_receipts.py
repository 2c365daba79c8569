"""Stages commit to what they computed, and clients sign for it, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from daemon.services.inference import receipt_desk, step_codec
from daemon.services.inference.generation import GenerationOptions
from daemon.services.inference.receipt_desk import ReceiptDesk
from daemon.services.inference.receipt_folder import FOLDER, ReceiptFolder, load_receipts
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.inference.receipt import ServiceReceipt, countersign, encode_receipt, sign_receipt
from protocol.inference.recovery_events import GenerationEvent, HopWasLost
from protocol.inference.span import SpanDigests
from protocol.ports.offload import inline
from simulator.inference.stage_world import (
    CLIENT,
    MODEL,
    PROMPT,
    expected_tokens,
    generate,
    inference_world,
    request,
)

STAGE, PAYER = Signer(bytes([1]) * 32), Signer(bytes([2]) * 32)
SPANS = SpanDigests().add(10, bytes(32), bytes(32))


def receipt(session: str, layer_tokens: int) -> ServiceReceipt:
    return ServiceReceipt(
        model=MODEL,
        payer=PAYER.peer,
        stage=STAGE.peer,
        session=session,
        requests=1,
        tokens=10,
        layer_tokens=layer_tokens,
        busy_ms=1,
        generation=b"n" * 16,
        inputs=SPANS.inputs,
        outputs=SPANS.outputs,
    )


async def test_each_stage_gets_a_receipt_for_tokens_times_layers() -> None:
    async with inference_world() as world:
        for first, stop in ((0, 2), (2, 3), (3, 6)):
            world.add(first, stop, layer_s=0.001)
        async with world.client() as client:
            for _ in range(2):
                made = await generate(client, request(tokens=40))
                assert made.tokens == await expected_tokens(request(tokens=40))
        passed = 2 * (len(PROMPT) + 39)
        for node, layers in zip(world.nodes, (2, 1, 3), strict=True):
            found = world.receipts[node.peer]
            assert (found.requests, found.tokens) == (2, passed)
            assert found.layer_tokens == passed * layers
            assert found.payer == Signer(CLIENT).peer
            # 59 steps of the layers' time and a round trip of 20 ms, twice.
            assert found.busy_ms >= 2 * 40 * 20
        assert not world.refusals


async def test_stage_that_commits_to_other_results_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = step_codec.sign_span

    def sign(name: bytes, layers: object, spans: SpanDigests, signer: Signer) -> bytes:
        wrong = signer.peer == world.nodes[0].peer
        return true(name, layers, replace(spans, outputs=bytes(32)) if wrong else spans, signer)  # type: ignore[arg-type]

    monkeypatch.setattr(step_codec, "sign_span", sign)
    events: list[GenerationEvent] = []
    async with inference_world() as world:
        world.add(0, 6)
        world.add(0, 6, layer_s=0.01)
        async with world.client() as client:
            made = await generate(client, request(tokens=40), events=events)
        assert made.tokens == await expected_tokens(request(tokens=40))
        lost = [event for event in events if isinstance(event, HopWasLost)]
        assert [(one.peer, one.kind) for one in lost] == [(world.nodes[0].peer, "refused")]
        assert "names other results than travelled" in lost[0].detail
        assert set(world.receipts) == {world.nodes[1].peer}


async def test_stage_that_an_audit_finds_wrong_gets_no_receipt() -> None:
    async with inference_world() as world:
        liar = world.add(0, 6)
        honest = [world.add(0, 6, layer_s=0.01) for _ in range(2)]
        liar.stage._weights[3] = 0
        async with world.client() as client:
            options = GenerationOptions(audit_share=1.0)
            async with client.generation(request(tokens=6), options) as generation:
                while await generation.next_token() is not None:
                    pass
                await generation.audit()
            await generate(client, request(tokens=6))
        assert liar.peer not in world.receipts
        assert len(world.receipts) == 1
        assert next(iter(world.receipts)) in {node.peer for node in honest}


async def test_stage_that_restarts_accepts_the_receipts_of_later_answers() -> None:
    """What the stage forgot is not in them; else it would refuse them all."""
    async with inference_world() as world:
        node = world.add(0, 6)

        def restart(count: int, _generation: object) -> None:
            if count == 5:
                node.stage.restart()
                node.service._receipts._work.clear()

        async with world.client() as client:
            await generate(client, request(tokens=10), at=restart)
            await generate(client, request(tokens=10))
        assert world.receipts[node.peer].requests == 2
        assert not [reason for reason, _ in world.refusals if reason != "malformed"]


async def test_client_that_leaves_in_the_middle_of_a_step_gives_its_receipt() -> None:
    async with inference_world() as world:
        node = world.add(0, 6, layer_s=0.1)
        async with world.client() as client:
            async with client.generation(request(tokens=40)) as generation:
                while len(generation.tokens) < 5:
                    await generation.next_token()
                # A token takes 0.6 s, and the answer never arrives.
                with trio.move_on_after(0.3):
                    await generation.next_token()
            await trio.sleep(2)
        # The step under way is not in the receipt.
        assert world.receipts[node.peer].tokens == len(PROMPT) + 4
        assert not world.refusals


async def test_desk_refuses_what_was_not_computed() -> None:
    desk = ReceiptDesk(MODEL, STAGE)
    desk.note_work("client", 100)
    good = receipt("client", 100)

    async def bring(wrong: ServiceReceipt, *spans: SpanDigests) -> None:
        await desk.accept("client", b"n" * 16, spans, encode_receipt(sign_receipt(wrong, PAYER)))

    for wrong in (
        replace(good, layer_tokens=101),
        replace(good, session="other"),
        replace(good, outputs=b"x" * 32),
        replace(good, generation=b"o" * 16),
        replace(good, payer=STAGE.peer),
    ):
        with pytest.raises(PeerFault):
            await bring(wrong, SPANS)
    with pytest.raises(PeerFault, match="other data"):
        await bring(good)
    with pytest.raises(PeerFault):
        await desk.accept("client", b"n" * 16, (SPANS,), b"garbage")
    assert desk.tokens == 0
    await bring(good, SpanDigests(), SPANS)
    await bring(replace(good, layer_tokens=50, tokens=5), SPANS)
    assert desk.tokens == 10


async def test_strangers_push_out_only_receipts_for_less_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(receipt_desk, "MAX_SESSIONS", 3)
    desk = ReceiptDesk(MODEL, STAGE, ReceiptFolder(tmp_path, inline).keep)
    for number in range(6):
        session, work = f"client{number}", 100 - number if number < 5 else 200
        desk.note_work(session, work)
        signed = sign_receipt(receipt(session, work), PAYER)
        await desk.accept(session, b"n" * 16, (SPANS,), encode_receipt(signed))
    held = [signed.open_countersigned().session for signed in load_receipts(tmp_path, print)]
    assert held == ["client0", "client1", "client5"]


async def test_receipts_outlive_the_process_and_damage_is_named(tmp_path: Path) -> None:
    folder = ReceiptFolder(tmp_path, inline)
    signed = countersign(sign_receipt(receipt("client", 100), PAYER), STAGE)
    await folder.keep(signed, "client")
    (tmp_path / FOLDER / "torn").write_bytes(encode_receipt(signed)[:-5])
    (tmp_path / FOLDER / ".draft-x").write_bytes(b"half")
    said: list[str] = []
    found = load_receipts(tmp_path, said.append)
    assert found == [signed]
    assert len(said) == 1
    assert "torn" in said[0]
    desk = ReceiptDesk(MODEL, STAGE, held=found)
    assert desk.tokens == 10
    # The session goes on where it was.
    desk.note_work("client", 20)
    await desk.accept(
        "client", b"n" * 16, (SPANS,), encode_receipt(sign_receipt(receipt("client", 120), PAYER))
    )
    await folder.keep(None, "client")
    await folder.keep(None, "client")
