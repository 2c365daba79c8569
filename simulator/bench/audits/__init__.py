"""`hypergpud bench audits`: what work audits make of honest work, and of everything else.

- `cases.py`: the shipped tasks, codecs and circumstances that are measured.
- `members.py`: one member: its training loop, its ledger and what it names.
- `works.py`: what cheats offer in place of their work.
- `swarm.py`: rounds of a few members, each contribution of which is audited.
- `benchmark.py`: the command's table of scores and verdicts.
"""
