"""What is known of the network: what nodes measure, and what a plan concludes from it.

coordinate.py        where a node is, so that two nodes that never met have an estimated round trip
samples.py           what a window of measurements comes to
peer_observation.py  what one node reports of another in its Ready
network_snapshot.py  what follows from the reports of all members
flows.py             how much one path carries, by its round trip
quality.py           how good a connection is
peer_health.py       which peers are left out for a while
port_mapping.py       what a home router maps, and whether its address is any use
network_report.py     what `hypergpud doctor --network` says, and what to do
reachability.py      whether others can call a node, and which paths lead to a peer
"""
