"""AdamW (https://arxiv.org/abs/1711.05101) over a flat vector. Worker process only.

The update is torch's own kernel, the one of `torch.optim.AdamW(fused=True)`; a test compares the
bytes. The class itself imports torch's compiler at its first use, which adds 1.8 s to each start,
and keeps its state by tensor, where a checkpoint holds one flat vector.

As in `torch.optim`, weight decay scales with the learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.model.vectors import assign
from daemon.device.optimizers.optimizer import InnerOptimizer, check_finite
from daemon.device.optimizers.parameter_groups import ParameterPart, parts_of, spans_of
from protocol.run.manifest import Inner

# The value of torch and of the paper.
EPSILON = 1e-8
# The step count is stored in base 2**20, because a float32 only holds integers up to 2**24.
_STEP_WORDS = 2
_STEP_BASE = 1 << 20


class AdamW(InnerOptimizer):
    """Moves the `parts` of a model; without parts, all of the model.

    The state is the first moment, the second moment, and the step count.
    """

    def __init__(
        self, model: FlatModel, rules: Inner, parts: Sequence[ParameterPart] | None = None
    ) -> None:
        super().__init__(model.grad, rules.clip_norm)
        parts = parts_of(model, rules) if parts is None else parts
        self._rules = rules
        self._size = sum(part.size for part in parts)
        self._first = torch.zeros(self._size, device=model.flat.device)
        self._second = torch.zeros_like(self._first)
        self._steps = 0
        self._count = torch.zeros((), device=model.flat.device)
        self._groups = [
            (
                *group,
                [span.of(model.flat) for span in spans],
                [span.of(model.grad) for span in spans],
                [span.state_of(self._first) for span in spans],
                [span.state_of(self._second) for span in spans],
            )
            for group, spans in spans_of(parts).items()
        ]
        self.state_size = 2 * self._size + _STEP_WORDS

    @torch.no_grad()
    def update(self, factor: float) -> None:
        self._steps += 1
        self._count.fill_(self._steps)
        for learning_rate, weight_decay, parameters, gradients, first, second in self._groups:
            torch._fused_adamw_(
                parameters,
                gradients,
                first,
                second,
                [],
                [self._count] * len(parameters),
                lr=learning_rate * factor,
                beta1=self._rules.beta1,
                beta2=self._rules.beta2,
                weight_decay=weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def save(self, out: torch.Tensor) -> None:
        count = self._size
        assign(out[:count], self._first)
        assign(out[count : 2 * count], self._second)
        out[2 * count] = self._steps // _STEP_BASE
        out[2 * count + 1] = self._steps % _STEP_BASE

    def check(self, state: torch.Tensor) -> None:
        count = self._size
        high, low = float(state[2 * count]), float(state[2 * count + 1])
        whole = (
            high.is_integer()
            and low.is_integer()
            and 0 <= high <= 1 << 24
            and 0 <= low < _STEP_BASE
        )
        check_finite(state)
        if not whole or bool((state[count : 2 * count] < 0).any()):
            raise ValueError(
                "this is not the state of the inner optimizer: a negative second moment, or no"
                " step count"
            )

    def load(self, state: torch.Tensor) -> None:
        self.check(state)
        count = self._size
        high, low = float(state[2 * count]), float(state[2 * count + 1])
        self._first.copy_(state[:count])
        self._second.copy_(state[count : 2 * count])
        self._steps = int(high) * _STEP_BASE + int(low)

    def reset(self) -> None:
        self._first.zero_()
        self._second.zero_()
        self._steps = 0
