"""How certificates change the groups and the members that a status shows."""

from __future__ import annotations

from protocol import journal
from protocol.network.coordinate import FAR_US
from protocol.status.figures import clean, natural, whole
from protocol.status.group_records import GroupMap, GroupMember, MemberMove
from protocol.status.run_records import RoundSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState

MAX_MEMBERS = 64
"""Members of one round that are shown. A plan has no more."""


def note_groups(
    state: StatusState, event: journal.RoundCertified, before: RoundSummary | None
) -> None:
    """Show the groups of a certificate's plan, and who came and went since the one `before`."""
    members = tuple(clean(peer, MAX_NAME_CHARS) for peer in event.members[:MAX_MEMBERS])
    # Journals of older versions have no places.
    pairs = zip(members, event.places, strict=False)
    state.groups = GroupMap(
        number=whole(event.number),
        reason=clean(event.plan, MAX_TEXT_CHARS),
        predicted_s=natural(event.predicted_s) if event.predicted_s is not None else None,
        members=tuple(_member(peer, place) for peer, place in pairs),
    )
    if before is None:
        return
    joined = tuple(peer for peer in members if peer not in before.members)
    left = tuple(peer for peer in before.members if peer not in members)
    if joined or left:
        move = MemberMove(
            number=whole(event.number), at=natural(event.at), joined=joined, left=left
        )
        state.moves.append(move)


def _member(peer: str, place: journal.MemberPlace) -> GroupMember:
    return GroupMember(
        peer=peer,
        group=whole(place.group) + 1,
        is_measured=place.is_measured,
        x_ms=_milliseconds(place.x_us),
        y_ms=_milliseconds(place.y_us),
        z_ms=_milliseconds(place.z_us),
        height_ms=max(0.0, _milliseconds(place.height_us)),
    )


def _milliseconds(microseconds: int) -> float:
    return min(max(microseconds, -FAR_US), FAR_US) / 1000
