"""The demo: real daemons on loopback, watched through their status, compared by their files."""
