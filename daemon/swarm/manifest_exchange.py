"""The run's manifest from a peer, and the versions of the rules that both sides know."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.messenger import Refuse
from protocol.digest import SHOWN_DIGITS
from protocol.errors import Unreachable
from protocol.identity import PeerId, short
from protocol.journal import JournalEvent, Warned
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.rules.versions import FIRST_RULES, KNOWN_RULES, MAX_RULES, check_rules, in_words
from protocol.run.manifest import MAX_MANIFEST_BYTES, SignedManifest

MANIFEST_PROTOCOL = "/hypergpu/manifest/2"
# For programs that know the first rules alone and do not say which rules they know.
FIRST_MANIFEST_PROTOCOL = "/hypergpu/manifest/1"
REQUEST_BYTES = 256
# Between two warnings about programs that do not know the rules, since anyone can ask repeatedly.
RULES_SILENCE_S = 60.0
# Versions of the rules that one program may know.
MAX_VERSIONS = 32
# The time for one request and its answer.
ANSWER_S = 20.0


class ManifestRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The versions of the rules that a program knows, which it says before it joins."""

    rules: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=MAX_RULES)], ...], Meta(max_length=MAX_VERSIONS)
    ]


def serve_manifest(
    network: Network,
    manifest: SignedManifest,
    refuse: Refuse,
    record: Callable[[JournalEvent], None],
) -> None:
    """Give the run's manifest to anyone who asks. A newcomer needs to know nothing else.

    A program that does not know the run's rules gets the manifest as well, and refuses by itself.
    `refuse` is called for each such program, and `record` for one a minute, so that the people on
    both sides read why the program did not join.
    """
    rules = manifest.open().rules
    warned_s = -RULES_SILENCE_S

    async def answer(stream: ByteStream, known: tuple[int, ...]) -> None:
        nonlocal warned_s
        if rules not in known:
            reason = (
                f"it asked to join; it knows rules {in_words(known)}, "
                f"and this run uses rules {rules}"
            )
            refuse("rules", stream.peer, reason)
            if trio.current_time() - warned_s >= RULES_SILENCE_S:
                warned_s = trio.current_time()
                record(Warned(code="RULES", message=f"{short(stream.peer)} did not join: {reason}"))
        await stream.send_all(frame(msgspec.msgpack.encode(manifest)))
        await stream.send_eof()

    async def handle(stream: ByteStream) -> None:
        request = decode_as(ManifestRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
        await answer(stream, request.rules)

    async def handle_first(stream: ByteStream) -> None:
        await answer(stream, (FIRST_RULES,))

    network.serve(MANIFEST_PROTOCOL, handle)
    network.serve(FIRST_MANIFEST_PROTOCOL, handle_first)


async def fetch_manifest(
    network: Network, peer: PeerId, known: Collection[int] = KNOWN_RULES
) -> SignedManifest:
    """The manifest of a peer's run. The caller must open it, which checks it.

    Args:
        known: The versions of the rules that the caller supports, which the request names. A peer
            that knows the first rules alone is asked by their protocol, so that its manifest says
            why it cannot be joined.

    Raises:
        Unreachable: When the peer does not answer.
        PeerFault: When its answer breaks the protocol.
    """
    try:
        return await _fetch_manifest(
            network, peer, MANIFEST_PROTOCOL, ManifestRequest(rules=tuple(sorted(known)))
        )
    except Unreachable as refused:
        try:
            return await _fetch_manifest(network, peer, FIRST_MANIFEST_PROTOCOL, None)
        except Unreachable:
            raise refused from None


async def fetch_run(
    network: Network, peer: PeerId, known: Collection[int] = KNOWN_RULES
) -> SignedManifest:
    """As `fetch_manifest`, for a program that wants to join: checked, with rules that it knows.

    Raises:
        UserError: "MANIFEST" or "RULES", besides the exceptions of `fetch_manifest`.
    """
    signed = await fetch_manifest(network, peer, known)
    check_rules(signed.open().rules, signed.run.hex()[:SHOWN_DIGITS], known, of_home=False)
    return signed


async def _fetch_manifest(
    network: Network, peer: PeerId, protocol: str, request: ManifestRequest | None
) -> SignedManifest:
    with trio.move_on_after(ANSWER_S):
        stream = await network.open_stream(peer, protocol)
        try:
            if request is not None:
                await stream.send_all(frame(msgspec.msgpack.encode(request)))
            return decode_as(
                SignedManifest, await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES + 256)
            )
        finally:
            await stream.aclose()
    raise Unreachable(f"no manifest within {ANSWER_S:g} s")
