"""The observer's web side: a page, an API and metrics, all rendered from one `Status`.

    trio (the swarm) ── publish(Status), feed.add(event) ──▶ Bridge
                                              └──▶ snapshot, events ──▶ aiohttp thread

A snapshot is at most a second old. Events travel at once: `history/` keeps them, and `api/` streams
them to clients. Only the start and the stop of the server are awaited across the two threads.
`endpoints.py` lists what is served and says how to add an endpoint. Only this package imports
aiohttp and prometheus_client.
"""
