"""What an engine takes, measured: seconds of a decode step by batch, seconds of prefill by tokens."""

from __future__ import annotations

from copy import copy

#: Of what was measured, kept at each new measurement.
DECAY = 0.98

#: Before anything is measured: seconds of a decode step alone, of one more sequence in it (as a share of that), and of
#: a prefilled token. Only their ratios matter to a decision, and those are those of a small model on a CPU.
STEP, SHARE, PREFILL = 0.02, 0.05, 0.0005


class CostModel:
    """step(n) = base + slope * n, by decayed least squares. Where the batch hardly varied, the slope leans on its
    prior share of the step, so that one batch size seen often does not pretend to know the others."""

    def __init__(self) -> None:
        self.base = STEP
        self.slope = STEP * SHARE
        self.prefill = PREFILL
        self._weight = self._n = self._y = self._nn = self._ny = 0.0
        self._tokens = self._seconds = 0.0

    def copy(self) -> CostModel:
        return copy(self)

    def step(self, batch: float) -> float:
        """Seconds of one decode step with `batch` sequences: the TPOT of each."""
        return self.base + self.slope * batch

    def batch_within(self, tpot: float) -> int:
        """The largest batch that keeps `tpot` seconds per token; at least 1."""
        return max(1, int((tpot - self.base) / self.slope + 1e-9)) if self.slope > 0 else 1 << 30

    def decoded(self, batch: float, tokens: int, seconds: float) -> None:
        """A sequence generated `tokens` tokens in `seconds`, in a mean batch of `batch`."""
        if tokens < 1 or seconds <= 0:
            return
        y = seconds / tokens
        self._weight = self._weight * DECAY + 1
        self._n = self._n * DECAY + batch
        self._y = self._y * DECAY + y
        self._nn = self._nn * DECAY + batch * batch
        self._ny = self._ny * DECAY + batch * y
        mean, level = self._n / self._weight, self._y / self._weight
        variance = max(0.0, self._nn / self._weight - mean * mean)
        covariance = self._ny / self._weight - mean * level
        prior = SHARE * level / (1 + SHARE * mean)
        slope = max(0.0, (covariance + prior) / (variance + 1))
        # No engine is faster with more to do, and none does a step for nothing.
        self.slope = min(slope, 0.9 * level / max(mean, 1e-9))
        self.base = level - self.slope * mean

    def prefilled(self, tokens: float, seconds: float) -> None:
        """`tokens` (a prompt's, and of those it had to wait for) were filled in `seconds`."""
        if tokens >= 1 and seconds > 0:
            self._tokens = self._tokens * DECAY + tokens
            self._seconds = self._seconds * DECAY + seconds
            self.prefill = self._seconds / self._tokens
