"""Implements AdamW over one flat vector, and clips the whole gradient. Worker process only.

The algorithm is that of https://arxiv.org/abs/1711.05101.

This module does not use `torch.optim.AdamW`: a checkpoint holds the state as one flat vector, and
the import of `torch.optim` adds a second to each start. The update is the same as torch's, term by
term; a test compares them.
"""

from __future__ import annotations

import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.model.vectors import assign
from protocol.run.manifest import Inner

# The value of torch and of the paper.
EPSILON = 1e-8
# The step count is stored in base 2**20, because a float32 only holds integers up to 2**24.
_STEP_WORDS = 2
_STEP_BASE = 1 << 20


class AdamW:
    """Updates a model's flat vector in place.

    The state has `state_size` float32: first moment, second moment, step count.
    """

    def __init__(self, model: FlatModel, rules: Inner) -> None:
        self._model = model
        self._rules = rules
        self._first = torch.zeros_like(model.flat)
        self._second = torch.zeros_like(model.flat)
        self._scratch = torch.zeros_like(model.flat)
        self._steps = 0
        self.state_size = 2 * model.flat.numel() + _STEP_WORDS

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """Make one update at `factor` of the run's learning rate. Never waits for the device.

        `grad` is scaled in place.
        """
        rate = self._rules.learning_rate * factor
        rules, flat, grad = self._rules, self._model.flat, self._model.grad
        norm = torch.linalg.vector_norm(grad)
        grad.mul_(torch.clamp(rules.clip_norm / (norm + 1e-6), max=1.0))
        self._steps += 1
        if rules.weight_decay:
            for view in self._model.decayed:
                view.mul_(1 - rate * rules.weight_decay)
        self._first.lerp_(grad, 1 - rules.beta1)
        self._second.mul_(rules.beta2).addcmul_(grad, grad, value=1 - rules.beta2)
        first_left, second_left = 1 - rules.beta1**self._steps, 1 - rules.beta2**self._steps
        denominator = (
            torch.sqrt(self._second, out=self._scratch).div_(second_left**0.5).add_(EPSILON)
        )
        flat.addcdiv_(self._first, denominator, value=-rate / first_left)

    def save(self, out: torch.Tensor) -> None:
        """Write the state into `out`, shape (state_size,) on the CPU."""
        count = self._first.numel()
        assign(out[:count], self._first)
        assign(out[count : 2 * count], self._second)
        out[2 * count] = self._steps // _STEP_BASE
        out[2 * count + 1] = self._steps % _STEP_BASE

    def load(self, state: torch.Tensor) -> None:
        """Read the state that `save` wrote.

        Raises `ValueError`, and changes nothing, for an impossible state.
        """
        count = self._first.numel()
        high, low = float(state[2 * count]), float(state[2 * count + 1])
        whole = (
            high.is_integer()
            and low.is_integer()
            and 0 <= high <= 1 << 24
            and 0 <= low < _STEP_BASE
        )
        if (
            not whole
            or not bool(torch.isfinite(state).all())
            or bool((state[count : 2 * count] < 0).any())
        ):
            raise ValueError(
                "this is not the state of the inner optimizer: not finite, a negative second"
                " moment, or no step count"
            )
        self._first.copy_(state[:count])
        self._second.copy_(state[count : 2 * count])
        self._steps = int(high) * _STEP_BASE + int(low)

    def reset(self) -> None:
        """Return to the state before the first step."""
        self._first.zero_()
        self._second.zero_()
        self._steps = 0
