"""The ports in a made-up world: network, trainer and disk in virtual time, seeded, breakable at any
moment.
"""
