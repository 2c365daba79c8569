"""Generating text: how the next token is chosen, and how tokens become text piece by piece.

sampler.py       the next token from a model's logits
text_pieces.py   text from tokens while they are made, up to a stop sequence
"""
