"""The observer's web side: a page, JSON and metrics, all rendered from one `Status`.

    trio (the swarm) ── publish(Status) ──▶ Bridge
                                              └──▶ snapshot, once a second ──▶ aiohttp thread

What happens travels at once: `history/` keeps it, and `api/` streams it to clients. Only the start and the stop of the server are awaited across the two threads. `endpoints.py` lists
what is served and says how to add an endpoint. Only this package imports aiohttp and
prometheus_client.
"""
