"""The demo: real daemons on loopback, watched through the same status that every other reader gets,
and judged by their files.
"""
