"""The control socket, through which a command reaches the daemon of a home.

`wire` defines the messages. `client` is blocking and starts fast. `server` uses trio.
"""
