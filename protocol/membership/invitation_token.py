"""The text of an invitation: `hgpu1` and letters, which one person sends to another.

Behind the prefix stand, in base58 blocks: the length of the body (2 bytes), the body (msgpack) and
a checksum (4 bytes). The length comes first, so that a text that was cut off is known as such.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import SHOWN_DIGITS, Digest, digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, peer_id_of, public_key_of
from protocol.membership.invitation import Grant, Key, SignedGrant, open_grant, read_grant
from protocol.messages.base import UNREADABLE, Hash
from protocol.text import base58

TOKEN_VERSION = 1
TOKEN_KIND = "hgpu"
MAX_ADDRESSES = 6
"""One address that answers names the other members. Each takes about 65 characters."""

MAX_TOKEN_CHARS = 4096
_CHECKSUM_DOMAIN = b"hypergpu/token/1\0"
_LENGTH_BYTES, _CHECKSUM_BYTES = 2, 4
_TOKEN = re.compile(rf"{TOKEN_KIND}([0-9])(.*)", re.DOTALL)
_ADDRESS = re.compile(r"/(ip4|ip6|dns4|dns6|dns)/([^/]+)/tcp/([0-9]+)/p2p/([0-9A-Za-z]+)")
_ASK_AGAIN = "ask the run's owner for a new invitation: hypergpud invite"


class Entrance(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The address of a node of the run: a multiaddr of TCP, in its parts."""

    kind: Annotated[str, Meta(max_length=4)]
    host: Annotated[str, Meta(max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65535)]
    key: Key

    @property
    def address(self) -> str:
        return f"/{self.kind}/{self.host}/tcp/{self.port}/p2p/{peer_id_of(self.key)}"


class Invitation(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a token says. Whoever holds it can use it."""

    run: Hash
    grant: SignedGrant
    # The secret half of the grant's one-time key.
    secret: Key
    entrances: Annotated[tuple[Entrance, ...], Meta(max_length=MAX_ADDRESSES)] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs at which to join."""
        return tuple(entrance.address for entrance in self.entrances)

    def granted(self) -> Grant:
        """What the token grants, before the run's owner is known. Raises `UserError`."""
        try:
            return read_grant(self.grant)
        except PeerFault as fault:
            raise token_fault(str(fault)) from None


_decoder = msgspec.msgpack.Decoder(Invitation)


def is_token(text: str) -> bool:
    """Whether a text is meant as an invitation, whole or not."""
    return _plain(text).startswith(TOKEN_KIND)


def entrances_of(addresses: tuple[str, ...]) -> tuple[Entrance, ...]:
    """The entrances of multiaddrs; those of other transports are left out."""
    found: list[Entrance] = []
    for address in addresses:
        parts = _ADDRESS.fullmatch(address)
        if parts is None:
            continue
        kind, host, port, peer = parts.groups()
        try:
            key = public_key_of(peer).public_bytes_raw()
        except PeerFault:
            continue
        found.append(Entrance(kind=kind, host=host, port=int(port), key=key))
    return tuple(dict.fromkeys(found))[:MAX_ADDRESSES]


def encode_token(invitation: Invitation) -> str:
    """Encode an invitation as one line."""
    body = msgspec.msgpack.encode(invitation)
    data = len(body).to_bytes(_LENGTH_BYTES, "big") + body + _checksum(body)
    return f"{TOKEN_KIND}{TOKEN_VERSION}{base58.encode(data)}"


def decode_token(text: str) -> Invitation:
    """Decode a line that a person pasted; blanks and quotation marks do not count.

    The owner's signature is checked once the manifest is known (`check_token`).

    Raises:
        UserError: "INVITATION" says whether the text is no invitation, of another version, cut
            off, or garbled.
    """
    plain = _plain(text)
    match = _TOKEN.match(plain)
    if match is None:
        raise token_fault(f"an invitation begins with {TOKEN_KIND}{TOKEN_VERSION}")
    if (version := int(match[1])) != TOKEN_VERSION:
        raise UserError(
            "INVITATION",
            f"This invitation has version {version}; this program reads version {TOKEN_VERSION}.",
            fix="install a newer hypergpu",
            exit_code=2,
        )
    if len(plain) > MAX_TOKEN_CHARS:
        raise token_fault(f"it has {len(plain)} characters; {MAX_TOKEN_CHARS} are allowed")
    if len(match[2]) < base58.BLOCK_CHARS:
        raise token_fault(f"it was cut off after {len(plain)} characters")
    try:
        _check_length(base58.decode(match[2][: base58.BLOCK_CHARS]), plain)
        data = base58.decode(match[2])
    except ValueError as error:
        raise token_fault(f"it is garbled: {error}") from None
    body, checksum = data[_LENGTH_BYTES:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body):
        raise token_fault("it is garbled: a character was changed on the way")
    try:
        return _decoder.decode(body)
    except UNREADABLE as error:
        raise token_fault(f"its content is unknown to this program: {error}") from None


def _check_length(first: bytes, plain: str) -> None:
    """Compare a text's length with the one that its first block says.

    Raises `UserError("INVITATION")` for a text that was cut off or is too long."""
    size = _LENGTH_BYTES + int.from_bytes(first[:_LENGTH_BYTES], "big") + _CHECKSUM_BYTES
    whole = len(TOKEN_KIND) + 1 + base58.encoded_chars(size)
    if len(plain) < whole:
        raise token_fault(f"it was cut off: {len(plain)} of {whole} characters arrived")
    if len(plain) > whole:
        raise token_fault(f"it has {len(plain)} characters, but says {whole}")


def check_token(invitation: Invitation, run: Digest, owner: PeerId) -> Grant:
    """Check that an invitation is for this run and that its owner signed it.

    Raises `UserError("INVITATION")`.
    """
    if invitation.run != run:
        raise UserError(
            "INVITATION",
            "This invitation is for another run.",
            why=f"it is for run {invitation.run.hex()[:SHOWN_DIGITS]}, "
            f"and this is run {run.hex()[:SHOWN_DIGITS]}",
            fix=_ASK_AGAIN,
            exit_code=2,
        )
    try:
        return open_grant(invitation.grant, run, owner)
    except PeerFault as fault:
        raise token_fault(str(fault)) from None


def check_expiry(grant: Grant, now_s: float) -> None:
    """Raises `UserError("INVITATION")` for a grant that expired; `now_s` is Unix time."""
    if now_s <= grant.expires_s:
        return
    when = datetime.fromtimestamp(grant.expires_s, UTC)
    raise UserError(
        "INVITATION",
        f"This invitation expired on {when:%Y-%m-%d at %H:%M} UTC.",
        fix=_ASK_AGAIN,
        exit_code=2,
    )


def token_fault(why: str) -> UserError:
    """Return the error for a text that is no valid invitation."""
    return UserError(
        "INVITATION",
        "This invitation cannot be used.",
        why=why,
        fix=f"copy the whole line again, or {_ASK_AGAIN}",
        exit_code=2,
    )


def _checksum(body: bytes) -> bytes:
    return digest(_CHECKSUM_DOMAIN, body)[:_CHECKSUM_BYTES]


def _plain(text: str) -> str:
    return "".join(text.split()).strip("'\"")
