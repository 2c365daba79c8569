"""Stages: contiguous ranges of a model's layers that a node serves. Worker process only.

    architecture.py   the figures of a model: family, layers, widths, kinds of norms
    weights/          where tensors come from, and the digests of their shards
    export_shards.py  shards as files, for members that do not have the model
    attention.py      attention over a key-value cache
    blocks/           the layers of each family
    cache.py          the key-value caches of the open generations, and their quota
    stage_model.py    a range of layers: tokens or hidden states in, hidden states or logits out
    kernel.py         the kernel id: nodes with the same id compute the same bits

`protocol/ports/stage.py` is the port that the node sees.
"""
