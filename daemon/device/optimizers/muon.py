"""Muon (https://kellerjordan.github.io/posts/muon/) for hidden matrices. Worker process only.

Momentum, then the nearest orthogonal matrix by five Newton-Schulz steps in bfloat16, as in
`torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`; a test compares the bytes. That factor
(https://arxiv.org/abs/2502.16982) gives an update the size of AdamW's, so one learning rate serves
all parameters. AdamW moves embeddings, vectors, and kernels of other than two dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.model.vectors import assign
from daemon.device.optimizers.adamw import AdamW
from daemon.device.optimizers.optimizer import InnerOptimizer, check_finite
from daemon.device.optimizers.parameter_groups import ParameterPart, parts_of
from protocol.run.manifest import Inner

# The coefficients of Keller Jordan's quintic iteration, and the number of its steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
EPSILON = 1e-7
# The usual size of an element of AdamW's update, which "match_rms_adamw" aims at.
ADAMW_SIZE = 0.2


def nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return about the orthogonal factor of a matrix, bfloat16, of the matrix's shape.

    The singular values of the result lie between 0.5 and 1.5.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.size(0) > matrix.size(1)
    x = matrix.bfloat16()
    x = x.T if is_tall else x
    # The spectral norm is at most the Euclidean norm, so it is at most 1 from here on.
    x.div_(x.norm().clamp(min=EPSILON))
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(InnerOptimizer):
    """Moves hidden matrices by Muon, and the other `parts` of a model by AdamW.

    The state is the momentum of the hidden matrices, then the state of AdamW.
    """

    def __init__(
        self, model: FlatModel, rules: Inner, parts: Sequence[ParameterPart] | None = None
    ) -> None:
        super().__init__(model.grad, rules.clip_norm)
        parts = parts_of(model, rules) if parts is None else parts
        hidden = [part for part in parts if part.is_hidden_matrix]
        self._rest = AdamW(model, rules, [part for part in parts if not part.is_hidden_matrix])
        self._momentum = rules.effective_momentum
        self._size = sum(part.size for part in hidden)
        self._average = torch.zeros(self._size, device=model.flat.device)
        self._matrices: list[tuple[ParameterPart, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        at = 0
        for part in hidden:
            views = (
                vector[start : start + part.size].view(part.shape)
                for vector, start in (
                    (model.flat, part.start),
                    (model.grad, part.start),
                    (self._average, at),
                )
            )
            self._matrices.append((part, *views))  # type: ignore[arg-type]
            at += part.size
        self.state_size = self._size + self._rest.state_size

    @torch.no_grad()
    def update(self, factor: float) -> None:
        for part, matrix, gradient, average in self._matrices:
            average.lerp_(gradient, 1 - self._momentum)
            step = nearest_orthogonal(gradient.lerp(average, self._momentum))
            learning_rate = part.learning_rate * factor
            matrix.mul_(1 - learning_rate * part.weight_decay)
            size = ADAMW_SIZE * math.sqrt(max(part.shape))
            matrix.add_(step, alpha=-learning_rate * size)
        self._rest.update(factor)

    def save(self, out: torch.Tensor) -> None:
        assign(out[: self._size], self._average)
        self._rest.save(out[self._size :])

    def check(self, state: torch.Tensor) -> None:
        check_finite(state[: self._size])
        self._rest.check(state[self._size :])

    def load(self, state: torch.Tensor) -> None:
        self.check(state)
        self._average.copy_(state[: self._size])
        self._rest.load(state[self._size :])

    def reset(self) -> None:
        self._average.zero_()
        self._rest.reset()
