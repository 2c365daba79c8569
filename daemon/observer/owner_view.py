"""What the page shows to the run's owner alone: the line with which a friend joins.

Three conditions hold for an answer: the server listens on loopback for no other names, the request
comes from this machine, and it carries the key of the link that `hypergpud observe` printed in the
owner's terminal. A proxy on this machine, another user of it and a stranger's web page have no key.
"""

from __future__ import annotations

import hmac
import ipaddress

import msgspec

from daemon.observer.bridge import OwnerView
from daemon.observer.http_answers import HttpAnswer, refuse
from daemon.observer.request_guard import Refusal
from daemon.observer.settings import BoundAddress, ObserverSettings

INVITATION_PATH = "/api/v1/invitation"
KEY_HEADER = "X-HyperGPU-Owner"
_JSON = "application/json"


class InvitationBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/v1/invitation`."""

    command: str
    terms: str


def may_show(settings: ObserverSettings, bound: BoundAddress) -> bool:
    """Whether only this machine can reach the page: on loopback, without a proxy's names."""
    return not settings.hosts and is_loopback(bound.host)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def invitation_answer(view: OwnerView | None, key: str, remote: str) -> HttpAnswer:
    """Answer a request for the invitation.

    Args:
        view: None where nobody may see it here.
        key: the request's `KEY_HEADER`.
        remote: the address that the request came from.
    """
    if (
        view is None
        or not is_loopback(remote)
        or not hmac.compare_digest(view.key.encode(), key.encode(errors="replace"))
    ):
        return refuse(
            Refusal(
                status=403,
                code="NOT_OWNER",
                what="Only the run's owner sees its invitation.",
                fix="open the link for the owner that hypergpud observe printed, or type"
                " hypergpud invite in the owner's home",
            )
        )
    body = InvitationBody(command=view.command, terms=view.terms)
    return HttpAnswer(body=msgspec.json.encode(body), content_type=_JSON)
