"""Who may certify: members and voters, patience without a quorum, and the choice between branches.

Everything here is a pure function of the manifest, of certificates, and of times that the caller
passes.
"""
