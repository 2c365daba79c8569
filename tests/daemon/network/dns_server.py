"""A DNS server on loopback that answers TXT questions from a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import trio


@asynccontextmanager
async def dns_server(texts: Mapping[str, list[str]]) -> AsyncIterator[int]:
    """Answer inside the block; yields the UDP port. A name that is not in the table is unknown."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))

        async def serve() -> None:
            while True:
                data, sender = await server.recvfrom(4096)
                query = dns.message.from_wire(data)
                reply = dns.message.make_response(query)
                question = query.question[0]
                found = texts.get(question.name.to_text(omit_final_dot=True))
                if found is None:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                else:
                    reply.answer.append(
                        dns.rrset.from_text_list(
                            question.name, 60, "IN", "TXT", [f'"{text}"' for text in found]
                        )
                    )
                await server.sendto(reply.to_wire(), sender)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield server.getsockname()[1]
            nursery.cancel_scope.cancel()
