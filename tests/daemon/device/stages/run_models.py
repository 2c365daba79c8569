"""A small byte GPT, as `hypergpud export --format safetensors` writes it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch

from daemon.device.tasks.byte_gpt import ByteGptOptions, Gpt
from daemon.disk.tensors import encode

OPTIONS = ByteGptOptions(layers=3, heads=4, width=32, context=96)


def byte_gpt(options: ByteGptOptions = OPTIONS) -> Gpt:
    """Return a model whose weights are random, and large enough that tokens differ."""
    torch.manual_seed(11)
    model = Gpt(options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_byte_gpt(file: Path, *, flat: bool = False, options: ByteGptOptions = OPTIONS) -> Gpt:
    """Write the model, as one vector where `flat`. Returns it."""
    model = byte_gpt(options)
    tensors = {name: part.detach().numpy() for name, part in model.named_parameters()}
    metadata = {
        "format": "hypergpu/model/1",
        "task": "byte_gpt",
        "task_options": msgspec.json.encode(options).decode(),
    }
    if flat:
        tensors = {"parameters": np.concatenate([part.reshape(-1) for part in tensors.values()])}
    file.write_bytes(b"".join(encode(tensors, metadata)))
    return model
