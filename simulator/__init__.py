"""Simulated swarms and benchmarks: the node's own code, run where everything can go wrong.

The folders, in the order of their imports (a folder imports only folders above it):

    fakes      the ports in memory and virtual time: network, disk, trainer, chain, clock
    faults     faults as data, the lies of a Byzantine node, and what carries both out
    world      a swarm of simulated nodes, and the invariants that hold in it
    scenarios  stories: named ones, random ones, and their record on disk
    playback   plays stories, judges them and reports
    network    compares group sizes on stated links, without nodes
    harness    real member processes that are killed or stopped in mid-round
    bench      `hypergpud bench`
    cli        `hypergpud simulate`
"""
