"""The wallet: a secp256k1 account in a keystore of the home, unlocked by a password that comes from
a file, the system or the person.
"""
