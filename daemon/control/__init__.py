"""The control socket: how a command reaches the daemon of its home.

`wire` is shared, `client` blocks and starts fast, `server` is trio.
"""
