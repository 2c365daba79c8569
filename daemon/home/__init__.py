"""The home: the directory in which a node keeps its key, settings and runs.

`layout.py` names the files. One daemon holds the home (`lock.py`), watches it (`home_watcher.py`),
and remembers port, runs and members for the next start (`recent_state.py`). `node_key.py` and
`serials.py` hold the node's identity. `run_repair.py` sets damaged files aside. The files inside a
run's folder belong to `daemon/disk`.
"""
