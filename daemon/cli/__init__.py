"""The command line.

Results go to stdout, talk to stderr; each command imports what it needs when it runs, so that all
of them start fast.
"""
