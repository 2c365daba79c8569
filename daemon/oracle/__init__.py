"""Usage reports as a Plumise-style oracle takes them: made byte for byte, sent until taken, and
received by the observer.
"""
