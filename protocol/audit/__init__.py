"""Work audits: whether a contribution was trained on the data that its offer names.

An auditor measures how much a contribution lowers the loss of samples that it was trained on, and
of samples that nobody drew. Work on the named samples lowers their loss more. A copy, a replay,
noise or nothing does not. Everything here is pure; what an auditor measures is local, and decides
only its own statements.
"""
