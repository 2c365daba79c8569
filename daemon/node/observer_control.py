"""Carries out the owner's orders that arrive at an observer over HTTP.

On the owner's home the observer signs them with the owner's key, for requests with the token in
`<home>/api-token`. Everywhere else it only passes on what the owner has signed.
"""

from __future__ import annotations

import hmac
import secrets
from functools import partial
from pathlib import Path
from threading import Lock

import trio

from daemon.disk.atomic import write_atomically
from daemon.home.layout import KEY_FILE
from daemon.home.node_key import load_or_make_key
from daemon.home.owned_run import OwnedRun
from daemon.home.owner_order import sign_order
from daemon.journal import Journal
from daemon.observer.api.control import OrderBody, OrderRefused, OrderRequest
from daemon.system.offload import in_thread
from protocol.errors import PeerFault, UserError
from protocol.journal import Warned
from protocol.membership.owner_record import OwnerRecords, open_owner_record
from protocol.messages.base import Signed
from protocol.messages.envelope import decode_signed
from protocol.messages.membership import OrderAction, TrainingOrder
from protocol.ports.disk import DiskFull
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest

TOKEN_FILE = "api-token"
TOKEN_BYTES = 32

_DONE = {
    "start": "Every node trains again within seconds of hearing the order.",
    "pause": "Every node pauses within seconds of hearing the order.",
    "stop": "Every node writes a checkpoint and leaves.",
}
_ACTIONS: dict[str, OrderAction] = {"start": "start", "pause": "pause", "stop": "stop"}


def owned_by(home: Path, signed: SignedManifest) -> OwnedRun | None:
    """Return the run with its owner's key; None where this home is not the owner's."""
    manifest = signed.open()
    if manifest.rules < RULES_4 or not manifest.owner or not (home / KEY_FILE).exists():
        return None
    try:
        signer, _ = load_or_make_key(home)
    except UserError:
        # The observer works without it, and `hypergpud start` says what is wrong.
        return None
    return OwnedRun(signed=signed, signer=signer) if signer.peer == manifest.owner else None


def load_or_make_token(home: Path) -> str:
    """Return the token of this home's API, made at the first call.

    Raises:
        UserError: "API_TOKEN" for a token that exists and cannot be read: programs have it.
        DiskFull: where a new token cannot be written.
    """
    path = home / TOKEN_FILE
    try:
        known = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        known = ""
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError("API_TOKEN", f"Cannot read {path}.", why=why) from None
    if len(known) >= TOKEN_BYTES:
        return known
    made = secrets.token_urlsafe(TOKEN_BYTES)
    write_atomically(path, [memoryview(made.encode())])
    return made


async def training_control(
    home: Path,
    signed: SignedManifest,
    records: OwnerRecords,
    owned: OwnedRun | None,
    journal: Journal,
) -> TrainingControl:
    """Return what takes orders over HTTP. It signs them where `owned` is given.

    A token that cannot be read or made is a warning: the page then signs no orders.
    """
    token = ""
    if owned is not None:
        try:
            token = await in_thread(partial(load_or_make_token, home))
        except DiskFull as full:
            journal.record(Warned(code="DISK_FULL", message=f"No orders over HTTP: {full}"))
            owned = None
        except UserError as error:
            message = f"No orders over HTTP: {error.what} {error.why}"
            journal.record(Warned(code=error.code, message=message))
            owned = None
    return TrainingControl(home, signed, records, owned, token)


class TrainingControl:
    """Carries out orders, one at a time. Called in threads of the web side."""

    def __init__(
        self,
        home: Path,
        signed: SignedManifest,
        records: OwnerRecords,
        owned: OwnedRun | None,
        token: str,
    ) -> None:
        """Call it in trio. `records` belong to trio. `token` is used only with `owned`."""
        self._home, self._signed, self._records = home, signed, records
        self._owned, self._token = owned, token
        self._trio = trio.lowlevel.current_trio_token()
        self._lock = Lock()

    def __call__(self, action: str, bearer: str, request: OrderRequest) -> OrderBody:
        """Carry out one order. Raises `OrderRefused`."""
        run = self._signed.run.hex()
        if request.run and request.run != run:
            raise OrderRefused(
                404, "RUN", "This observer watches another run.", f"its run is {run}"
            )
        with self._lock:
            if request.signed:
                return self._forward(_ACTIONS[action], request.signed)
            return self._sign(_ACTIONS[action], bearer)

    def _sign(self, action: OrderAction, bearer: str) -> OrderBody:
        if self._owned is None:
            raise OrderRefused(
                403,
                "NOT_OWNER",
                "Only the owner of the run starts and stops training on every node.",
                "send the order to an observer on the owner's home, or send it signed",
            )
        if not hmac.compare_digest(bearer.encode(errors="replace"), self._token.encode()):
            raise OrderRefused(
                401,
                "TOKEN",
                "The request needs the token of the owner's home.",
                f"send the header  Authorization: Bearer  with the content of {TOKEN_FILE} in the"
                " owner's home",
            )
        try:
            made = sign_order(self._home, self._owned, action)
        except DiskFull as full:
            raise OrderRefused(503, "DISK_FULL", f"The order cannot be kept: {full}.") from None
        if made.signed is not None:
            self._keep(made.signed)
        return self._body(action, made.serial, made.signed is not None)

    def _forward(self, action: OrderAction, text: str) -> OrderBody:
        owner = self._signed.open().owner
        try:
            signed = decode_signed(bytes.fromhex(text))
            message = open_owner_record(signed, self._signed.run, owner).message
        except (ValueError, PeerFault) as error:
            raise OrderRefused(403, "SIGNATURE", f"The owner did not sign this: {error}.") from None
        if not isinstance(message, TrainingOrder) or message.action != action:
            raise OrderRefused(403, "SIGNATURE", "The signed order asks for something else.")
        return self._body(action, message.serial, self._keep(signed))

    def _keep(self, signed: Signed) -> bool:
        """Give an order to the exchange, which spreads it. Returns whether it is new and counts."""
        return (
            trio.from_thread.run_sync(self._records.add, signed, trio_token=self._trio) is not None
        )

    def _body(self, action: OrderAction, serial: int, changed: bool) -> OrderBody:
        message = _DONE[action] if changed else "The run does that already."
        return OrderBody(
            run=self._signed.run.hex(),
            action=action,
            serial=serial,
            changed=changed,
            message=message,
        )
