"""The observer's web side: a page, JSON and metrics, all of them renderings of one
`protocol.status.Status`.

    trio (the swarm) ── publish(Status) ──▶ Bridge ──▶ snapshot, at most one a second ──▶ aiohttp (its own thread)

Nothing is awaited across that border but the server's start and stop. The only package that imports
aiohttp and prometheus_client.
"""
