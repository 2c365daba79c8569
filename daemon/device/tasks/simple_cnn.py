"""The task "simple_cnn": a small convolutional network for handwritten digits."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from daemon.device.tasks.digits import load_digits
from daemon.device.tasks.task import Batch, Task, TaskOptions


class SimpleCnnOptions(TaskOptions, frozen=True, kw_only=True):
    """The options of "simple_cnn".

    `data` is "digits", or a folder with MNIST's files inside the node's data folders. `width` is
    the number of channels of the first layer.
    """

    data: str = "digits"
    width: Annotated[int, Meta(ge=1, le=1024)] = 16


class Cnn(nn.Module):
    """Maps images of shape (batch, 1, rows, columns) to logits of shape (batch, 10).

    It has no BatchNorm, so its scores do not depend on running statistics.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(2 * width * 4 * 4, 64)
        self.digit = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.first(image))
        x = F.relu(self.second(x))
        # One head serves images of 8 x 8 and of 28 x 28.
        x = F.adaptive_max_pool2d(x, 4)
        x = F.relu(self.hidden(x.flatten(1)))
        logits: Tensor = self.digit(x)
        return logits


class SimpleCnn(Task):
    """Recognizes the digit. A sample is one image."""

    Options = SimpleCnnOptions

    def __init__(self, options: SimpleCnnOptions, data_folders: tuple[str, ...] = ()) -> None:
        super().__init__(options, data_folders)
        self._images, self._labels = load_digits(options.data, data_folders)

    def model(self) -> nn.Module:
        return Cnn(self.options.width)

    def dataset_size(self) -> int:
        return len(self._labels)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        return torch.from_numpy(self._images[indices]), torch.from_numpy(self._labels[indices])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean loss, and the share of digits that are recognized ("accuracy")."""
        total, right = 0.0, 0
        for (images, labels), count in self.held_out_batches(model):
            logits = model(images)
            total += float(F.cross_entropy(logits, labels)) * count
            right += int((logits.argmax(1) == labels).sum())
        count = len(self.held_out_indices)
        return {"loss": total / count, "accuracy": right / count}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def predictions(self, model: nn.Module, batch: Batch) -> list[str]:
        images, labels = batch
        shares = model(images).softmax(1)
        return [
            f"digit {int(share.argmax())} ({float(share.max()):.0%} sure), labelled {int(label)}"
            for share, label in zip(shares, labels, strict=True)
        ]
