"""The owner's orders over HTTP: who may give them, and that each is carried out once."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from daemon.home.layout import KEY_FILE
from daemon.home.owned_run import OwnedRun
from daemon.home.run_membership import load_owner_records
from daemon.node.observer_control import TOKEN_FILE, TrainingControl, load_or_make_token, owned_by
from daemon.node.run_choice import seal_run
from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.envelope import encode_signed, sign
from protocol.messages.membership import TrainingOrder
from protocol.run.manifest import Manifest
from tests.daemon.observer.http_client import Reply, aask

pytestmark = pytest.mark.real
OWNER, OTHER = Signer(bytes(32)), Signer(bytes([1]) * 32)
SIGNED = seal_run(Manifest(name="run", task="none", rules=4), OWNER)
RUN = SIGNED.run.hex()
TOKEN = "t" * 43


@contextmanager
def controlled(home: Path, *, owner: bool) -> Iterator[tuple[Bridge, OwnerRecords]]:
    bridge, records = Bridge(), OwnerRecords(SIGNED.run, OWNER.peer)
    owned = OwnedRun(signed=SIGNED, signer=OWNER) if owner else None
    bridge.control = TrainingControl(home, SIGNED, records, owned, TOKEN)
    yield bridge, records


async def post(bound: BoundAddress, action: str, body: object = None, token: str = TOKEN) -> Reply:
    data = json.dumps(body).encode() if body is not None else b""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await aask(bound, f"/api/training/{action}", "POST", body=data, **headers)


async def test_control_signs_an_order_once_and_for_the_token_alone(tmp_path: Path) -> None:
    with controlled(tmp_path, owner=True) as (bridge, records):
        async with web_server(bridge, ObserverSettings(port=0)) as bound:
            for token in ("", "wrong", TOKEN[:-1], "\xff\xfe"):
                refused = await post(bound, "pause", token=token)
                assert (refused.status, refused.json()["error"]["code"]) == (401, "TOKEN")
                assert refused.headers["www-authenticate"] == "Bearer"
            assert records.order is None
            done = (await post(bound, "pause", {"run": RUN})).json()
            assert (done["changed"], done["serial"]) == (True, 1)
            again = (await post(bound, "pause")).json()
            assert (again["changed"], again["serial"]) == (False, 1)
            assert (await post(bound, "pause", {"run": "00" * 32})).status == 404
            assert (await post(bound, "start")).json()["serial"] == 2
            assert records.order == TrainingOrder(serial=2, action="start")
            # What is in the home is what the node of this home passes on.
            assert load_owner_records(tmp_path, SIGNED).order == records.order


async def test_control_carries_out_fifty_orders_at_once_in_one_order(tmp_path: Path) -> None:
    with controlled(tmp_path, owner=True) as (bridge, records):
        async with web_server(bridge, ObserverSettings(port=0)) as bound:
            answers: list[dict[str, object]] = []

            async def give(action: str) -> None:
                answers.append((await post(bound, action)).json())

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(give, ("pause", "start")[number % 2])
            changed = [one["serial"] for one in answers if one["changed"]]
            assert Counter(changed) == Counter(range(1, len(changed) + 1))
            assert records.order is not None
            assert records.order.serial == len(changed)


async def test_control_of_others_forwards_only_what_the_owner_signed(tmp_path: Path) -> None:
    def signed(signer: Signer, action: str = "stop", serial: int = 7) -> str:
        message = TrainingOrder(serial=serial, action=action)  # type: ignore[arg-type]
        return encode_signed(sign(signer, SIGNED.run, message)).hex()

    with controlled(tmp_path, owner=False) as (bridge, records):
        async with web_server(bridge, ObserverSettings(port=0)) as bound:
            plain = await post(bound, "stop")
            assert (plain.status, plain.json()["error"]["code"]) == (403, "NOT_OWNER")
            for text in (signed(OTHER), "zz", "00" * 50, signed(OWNER, "pause")):
                assert (await post(bound, "stop", {"signed": text}, token="")).status == 403
            assert records.order is None
            done = await post(bound, "stop", {"signed": signed(OWNER)}, token="")
            assert (done.status, done.json()["changed"]) == (200, True)
            assert (await post(bound, "stop", {"signed": signed(OWNER)})).json()["changed"] is False
            late = await post(bound, "start", {"signed": signed(OWNER, "start", 3)})
            assert late.json()["changed"] is False
            assert records.order == TrainingOrder(serial=7, action="stop")


async def test_control_refuses_bad_bodies_methods_and_origins(tmp_path: Path) -> None:
    with controlled(tmp_path, owner=True) as (bridge, records):
        async with web_server(bridge, ObserverSettings(port=0)) as bound:
            for body, status in (
                (b"{", 400),
                (b'{"walk": 1}', 400),
                (b"\xff\xfe", 400),
                (b" " * 5000, 413),
            ):
                headers = {"Authorization": f"Bearer {TOKEN}"}
                answer = await aask(bound, "/api/training/stop", "POST", body=body, **headers)
                assert (answer.status, set(answer.json())) == (status, {"error"})
            assert (await aask(bound, "/api/training/stop")).status == 405
            assert (await aask(bound, "/api/training/fly", "POST")).status == 405
            evil = await aask(
                bound,
                "/api/training/stop",
                "POST",
                Authorization=f"Bearer {TOKEN}",
                Origin="http://evil.example",
            )
            assert evil.status == 403
            assert records.order is None


async def test_control_refuses_a_body_in_another_encoding_than_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with controlled(tmp_path, owner=True) as (bridge, _):
        async with web_server(bridge, ObserverSettings(port=0)) as bound:
            refused = await aask(
                bound,
                "/api/training/pause",
                "POST",
                body=b"no gzip",
                **{"Content-Encoding": "gzip"},
            )
    assert (refused.status, refused.json()["error"]["code"]) == (400, "BAD_REQUEST")
    # A stranger must not fill the log.
    assert not caplog.records


async def test_control_without_an_owner_is_forbidden() -> None:
    async with web_server(Bridge(), ObserverSettings(port=0)) as bound:
        assert (await post(bound, "start")).status == 403


def test_the_token_of_a_home_is_private_and_stays(tmp_path: Path) -> None:
    token = load_or_make_token(tmp_path)
    assert len(token) >= 43
    assert load_or_make_token(tmp_path) == token
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_a_token_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    token = load_or_make_token(tmp_path)
    # A loop of links cannot be opened, by root neither.
    kept, path = tmp_path / "kept", tmp_path / TOKEN_FILE
    path.rename(kept)
    path.symlink_to(path)
    with pytest.raises(UserError, match="Cannot read"):
        load_or_make_token(tmp_path)
    assert path.is_symlink()
    kept.replace(path)
    assert load_or_make_token(tmp_path) == token


def test_only_the_owners_home_signs(tmp_path: Path) -> None:
    assert owned_by(tmp_path, SIGNED) is None
    assert not (tmp_path / KEY_FILE).exists()
    (tmp_path / KEY_FILE).write_bytes(bytes([1]) * 32)
    (tmp_path / KEY_FILE).chmod(0o600)
    assert owned_by(tmp_path, SIGNED) is None
