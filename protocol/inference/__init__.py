"""Pipelined inference: the rules by which stages serve a model and a client uses them.

layers.py     ranges of layers
model.py      the model manifest, which names a model by its content
"""
