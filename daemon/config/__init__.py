"""The settings of a node.

To add a setting, add a field to `settings.py`, its line to `explanations.py`, a check to
`checks.py` if its type allows too much, and a row to the table in docs/operate.md. `loader.py`
merges flags, environment, file and defaults, and reports all mistakes at once; `conversion.py`
turns text into a field's type.
"""
