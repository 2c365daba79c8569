"""Scales the loss, so that float16 gradients do not vanish (https://arxiv.org/abs/1710.03740).

The rules and constants are those of `torch.amp.GradScaler`, which works on an optimizer of torch.
A step that overflows begins again at half the scale, so no sample is lost. Worker process only.
"""

from __future__ import annotations

INITIAL_SCALE = 65536.0
GROWTH_INTERVAL = 2000
# Below 1, float32 gradients lose more than float16 ones gain.
SMALLEST_SCALE = 1.0


class LossScale:
    """The scale of one training loop; 1 where the precision needs none."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self.scale = INITIAL_SCALE if enabled else 1.0
        self._good_steps = 0

    def overflowed(self) -> bool:
        """Halve the scale. Returns False where it cannot be smaller: the values are at fault."""
        if not self._enabled or self.scale <= SMALLEST_SCALE:
            return False
        self.scale, self._good_steps = self.scale / 2, 0
        return True

    def used(self) -> None:
        """Count a step without an overflow."""
        self._good_steps += 1
        if self._enabled and self._good_steps == GROWTH_INTERVAL:
            self.scale, self._good_steps = self.scale * 2, 0
