"""The composition of a process: how a node and an observer are put together, and how they end.

`node.py` puts a node together and `observer_node.py` an observer; `app.py` runs either of them.
`run_choice.py` decides which run a start continues, begins or joins. `shutdown.py` decides when and
why the process ends. `control_commands.py` answers the commands that reach a running node.
"""
