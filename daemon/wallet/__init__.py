"""The wallet: a secp256k1 account in a keystore of the home.

A password from a file, the system or the user unlocks it.
"""
