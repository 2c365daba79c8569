"""The daemon's half of the chain: heartbeats, settling, claiming, and the records both need.

All of it works on the `Chain` port.
"""
