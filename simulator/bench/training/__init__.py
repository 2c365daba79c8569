"""`hypergpud bench training`: which system makes one model learn fastest on the same links.

conductor.py starts the peers of one arm, each behind a link of its own (../peer_hosts), lets them
train for a time, and reads their files. What the peers compute is the same in every arm:

    paced_gpt.py    the task: a step computes, then waits until its deadline
    native_peer.py  a node with the native engine and its worker
    torch_peer.py   plain torch: one process alone, or data parallel by gloo
    hivemind_peer.py    `hivemind.Optimizer`, large batch (A) or local updates (B)

Peers write snapshots of the parameters (snapshots.py). held_out.py scores them after the run, with
the same code for every arm, so scoring takes no training time.
"""
