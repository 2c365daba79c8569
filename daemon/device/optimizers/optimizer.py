"""The base of the inner optimizers, and the choice among them. Worker process only."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch


class InnerOptimizer(ABC):
    """Updates a model's flat vector in place.

    Its state is `state_size` float32, which a checkpoint holds as one flat vector. A tied parameter
    is one tensor and moves once. A parameter without a gradient in a batch has a gradient of zeros,
    as after `zero_grad(set_to_none=False)`.
    """

    state_size: int

    def __init__(self, grad: torch.Tensor, clip_norm: float) -> None:
        """`grad` are the gradients of all parameters, shape (parameters,)."""
        self._grad, self._clip_norm = grad, clip_norm

    @torch.no_grad()
    def step(self, norm: float, factor: float = 1.0) -> None:
        """Make one update at `factor` of the run's learning rate. Never waits for the device.

        `norm` is that of `grad`, which is scaled in place where it is above the run's limit, as
        `torch.nn.utils.clip_grad_norm_` does.
        """
        if (scale := self._clip_norm / (norm + 1e-6)) < 1.0:
            self._grad.mul_(scale)
        self.update(factor)

    @abstractmethod
    def update(self, factor: float) -> None:
        """Make one update with the gradients as they are."""

    @abstractmethod
    def save(self, out: torch.Tensor) -> None:
        """Write the state into `out`, shape (state_size,) on the CPU."""

    @abstractmethod
    def load(self, state: torch.Tensor) -> None:
        """Read the state that `save` wrote.

        Raises `ValueError`, and changes nothing, for an impossible state.
        """

    @abstractmethod
    def check(self, state: torch.Tensor) -> None:
        """Raise `ValueError` for an impossible state."""

    @abstractmethod
    def reset(self) -> None:
        """Return to the state before the first step."""


def check_finite(state: torch.Tensor) -> None:
    """Raise `ValueError` for a state with values that are not finite."""
    if not bool(torch.isfinite(state).all()):
        raise ValueError("this is not the state of the inner optimizer: not finite")
