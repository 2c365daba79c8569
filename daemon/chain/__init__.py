"""The daemon's part of the chain: heartbeats, settlements, claims, and the records they need.

All modules work on the `Chain` port.
"""
