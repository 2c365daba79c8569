"""The kinds of work that a node does for others. `service` defines the port; each folder is one
service. `daemon/node/node.py` lists the services that a node runs.
"""
