"""`revoke`: takes a peer, or an invitation, out of the run of this home's owner."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import RUN
from daemon.cli.commands.run_choices import disk_full
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.control.client import call
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of, short

PRIVATE = 0o077
# The last characters of a peer id that name a peer.
LEAST_CHARS = 6


class RevokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `revoke --json` prints."""

    subject: str
    run: str
    new: bool


@click.command()
@click.argument("peer", metavar="PEER", required=False)
@click.option("--invitation", type=click.IntRange(1), metavar="N", help="Revoke invitation N.")
@click.option("--run", "run", type=RUN, metavar="ID", help="A run of this home. [the last one]")
@global_options(hidden=True)
@click.pass_context
def revoke(
    context: click.Context, peer: str | None, invitation: int | None, run: Path | None
) -> None:
    """Take a peer, or an invitation, out of your run for good.

    PEER is a peer id or its last characters, as `hypergpud peers` shows them. A revoked invitation
    admits nobody any more; peers that it admitted stay.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    if (peer is None) == (invitation is None):
        raise UserError(
            "USAGE",
            "revoke takes a peer, or --invitation and its number.",
            fix="hypergpud revoke PEER",
            exit_code=2,
        )
    # The protocol's modules take a while; a mistake in the options does not wait for them.
    from daemon.home.owned_run import owned_run  # noqa: PLC0415
    from daemon.home.run_membership import add_owner_record  # noqa: PLC0415
    from protocol.messages.envelope import sign  # noqa: PLC0415
    from protocol.messages.membership import Revocation  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    owned = owned_run(invocation.home, run, "revokes peers and invitations")
    if invitation is not None:
        subject, shown = _invitation(invocation, owned.signed.run, invitation)
    else:
        subject = _peer(invocation, owned.signed.run, peer or "")
        shown = f"peer {short(subject)}"
        if subject == owned.signer.peer:
            raise UserError("REVOKE", "An owner cannot revoke itself.", exit_code=2)
    record = sign(owned.signer, owned.signed.run, Revocation(subject=subject))
    try:
        new = add_owner_record(invocation.home, owned.signed, record)
    except DiskFull as full:
        raise disk_full(full) from None
    if invocation.as_json:
        result = RevokeResult(subject=subject, run=owned.signed.run.hex(), new=new)
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.result(
        f"Revoked {shown}: every member hears it, and the next certificate names it."
        if new
        else f"The {shown} was revoked before."
    )


def _invitation(invocation: Invocation, run: bytes, serial: int) -> tuple[PeerId, str]:
    from daemon.home.invitations import load_invitations, note_uses  # noqa: PLC0415

    made = load_invitations(invocation.home, run).made
    found = next((one for one in made if one.serial == serial), None)
    if found is None:
        known = ", ".join(str(one.serial) for one in made) or "none"
        raise UserError(
            "REVOKE",
            f"This home has made no invitation {serial}.",
            why=f"its invitations are: {known}",
            exit_code=2,
        )
    note_uses(invocation.home, run, {}, [found.name])
    return found.name, f"invitation {serial}"


def _peer(invocation: Invocation, run: bytes, named: str) -> PeerId:
    """Return the peer that a person named. Raises `UserError("PEER")`."""
    try:
        public_key_of(named)
    except PeerFault:
        pass
    else:
        return named
    known = _known_peers(invocation, run)
    found = sorted(peer for peer in known if peer.endswith(named))
    if len(named) >= LEAST_CHARS and len(found) == 1:
        return found[0]
    why = (
        f"several peers end with it: {', '.join(map(short, found))}"
        if found and len(named) >= LEAST_CHARS
        else f"it has less than {LEAST_CHARS} characters"
        if len(named) < LEAST_CHARS
        else "no peer that this node has met ends with it"
    )
    raise UserError(
        "PEER",
        f"{named!r} names no peer.",
        why=why,
        fix="hypergpud peers --json   (shows whole peer ids)",
        exit_code=2,
    )


def _known_peers(invocation: Invocation, run: bytes) -> set[PeerId]:
    """The peers that the running daemon shows, and those of the last start."""
    from daemon.home.recent_state import members_of  # noqa: PLC0415
    from protocol.status import Status  # noqa: PLC0415

    known = {address.rpartition("/p2p/")[2] for address in members_of(invocation.home, run)}
    try:
        status = msgspec.json.decode(call(invocation.home, "status"), type=Status)
    except UserError:
        return known
    return known | {peer.peer for peer in status.peers}
