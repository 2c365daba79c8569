"""AdamW (https://arxiv.org/abs/1711.05101) over one flat vector. Worker process only.

The update is torch's own kernel, the one of `torch.optim.AdamW(fused=True)`; a test compares the
bytes. The class itself imports torch's compiler at its first use, which adds 1.8 s to each start,
and keeps its state by tensor, where a checkpoint holds one flat vector.

As in `torch.optim`, weight decay scales with the learning rate. Matrices and kernels decay, biases
and norms do not. A tied parameter is one tensor and moves once. A parameter without a gradient in a
batch has a gradient of zeros, as after `zero_grad(set_to_none=False)`.
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
        self._rules = rules
        self._grad = model.grad
        self._first = torch.zeros_like(model.flat)
        self._second = torch.zeros_like(model.flat)
        self._steps = 0
        self._count = torch.zeros((), device=model.flat.device)
        # One call for all parameters that decay alike and follow each other.
        spans = model.spans if rules.weight_decay else [(0, model.flat.numel(), False)]
        self._groups = [
            (
                rules.weight_decay if decays else 0.0,
                [
                    [vector[start:stop] for start, stop, also in spans if also == decays]
                    for vector in (model.flat, model.grad, self._first, self._second)
                ],
            )
            for decays in sorted({decays for _, _, decays in spans})
        ]
        self.state_size = 2 * model.flat.numel() + _STEP_WORDS

    @torch.no_grad()
    def step(self, norm: float, factor: float = 1.0) -> None:
        """Make one update at `factor` of the run's learning rate. Never waits for the device.

        `norm` is that of `grad`, which is scaled in place where it is above the run's limit.
        """
        rules = self._rules
        if (scale := rules.clip_norm / (norm + 1e-6)) < 1.0:
            self._grad.mul_(scale)
        self._steps += 1
        self._count.fill_(self._steps)
        for weight_decay, (parameters, gradients, first, second) in self._groups:
            torch._fused_adamw_(
                parameters,
                gradients,
                first,
                second,
                [],
                [self._count] * len(parameters),
                lr=rules.learning_rate * factor,
                beta1=rules.beta1,
                beta2=rules.beta2,
                weight_decay=weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

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
