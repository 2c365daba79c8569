"""What keeps a node from working, found without the network: `hypergpud doctor`.

finding.py        one finding: verdict, evidence, fix
home_findings.py  settings, home, key, run, daemon, ports
machine.py        disk, memory, clock, device
chain_finding.py  whether the chain's endpoints answer
report.py         all findings in order
bug_report.py     what a bug report holds, without secrets and addresses
redaction.py      removes secrets and addresses from text
"""
