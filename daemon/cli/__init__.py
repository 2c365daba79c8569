"""The command line.

Results go to stdout, messages for a person to stderr. `command_table.py` lists the commands and
says how to add one. Only the module of the command that runs is imported, so that each starts fast.
"""
