"""The ports in memory: network, trainer, disk and chain in virtual time, seeded, with faults."""
