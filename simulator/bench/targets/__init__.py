"""`hypergpud bench targets`: the benchmarks that HyperGPU promised first, measured here.

target_row.py        a target, its measured value, and the table
readings.py          values computed from what was read: memory, journals, rounds, answers
daemon_swarm.py      ten real daemons that train a shipped run
observer_answers.py  how fast an observer of those daemons answers
averaging.py         ten processes average one vector
disk_use.py          what four real daemons write to disk in a round
many_nodes.py        ten and a hundred nodes in virtual time
benchmark.py         all of it, in turn
"""
