"""SGD with momentum over a flat vector, as in `torch.optim.SGD`. Worker process only.

The update is torch's own kernel, the one of `torch.optim.SGD(fused=True)`; a test compares the
bytes. As there, weight decay is added to the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.model.vectors import assign
from daemon.device.optimizers.optimizer import InnerOptimizer, check_finite
from daemon.device.optimizers.parameter_groups import ParameterPart, parts_of, spans_of
from protocol.run.manifest import Inner


class Sgd(InnerOptimizer):
    """Moves the `parts` of a model; without parts, all of the model.

    The state is the momentum, or one unused value without momentum: an empty state means none.
    """

    def __init__(
        self, model: FlatModel, rules: Inner, parts: Sequence[ParameterPart] | None = None
    ) -> None:
        super().__init__(model.grad, rules.clip_norm)
        parts = parts_of(model, rules) if parts is None else parts
        self._momentum, self._nesterov = rules.effective_momentum, rules.nesterov
        size = sum(part.size for part in parts) if self._momentum else 1
        self._average = torch.zeros(size, device=model.flat.device)
        self._groups = [
            (
                *group,
                [span.of(model.flat) for span in spans],
                [span.of(model.grad) for span in spans],
                [span.state_of(self._average) for span in spans] if self._momentum else [],
            )
            for group, spans in spans_of(parts).items()
        ]
        self.state_size = size

    @torch.no_grad()
    def update(self, factor: float) -> None:
        for learning_rate, weight_decay, parameters, gradients, averages in self._groups:
            torch._fused_sgd_(
                parameters,
                gradients,
                averages,
                weight_decay=weight_decay,
                momentum=self._momentum,
                lr=learning_rate * factor,
                dampening=0.0,
                nesterov=self._nesterov,
                maximize=False,
                # A momentum of zeros gives the bytes of torch's first step.
                is_first_step=False,
            )

    def save(self, out: torch.Tensor) -> None:
        assign(out, self._average)

    def check(self, state: torch.Tensor) -> None:
        check_finite(state)

    def load(self, state: torch.Tensor) -> None:
        self.check(state)
        self._average.copy_(state)

    def reset(self) -> None:
        self._average.zero_()
