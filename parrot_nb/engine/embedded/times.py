"""How long steps take: a base time, a time for each context that writes and one for each token of a prompt, fitted while
the engine runs."""

from __future__ import annotations

FORGET = 0.97  # weight of what was known, with each new step
SUDDEN = 8.0  # a step so many times as long or short as expected is an exception; two short ones show that those before were
PRIOR_ROWS = 32  # before steps of several sizes were seen, a row is taken to cost this share of the base


class StepTimes:
    """Seconds of a step as `base_s + row_s * rows`: least squares in which old steps count ever less.

    Made for steps that only decode, whose time is mostly that of reading the weights. First steps, which compile and allocate, may
    take a thousand times as long.
    """

    def __init__(self) -> None:
        self._forget()
        self.base_s, self.row_s = 0.0, 0.0
        self._was_short = False

    def _forget(self) -> None:
        self._weight = self._rows = self._squares = self._seconds = self._products = 0.0

    def took(self, num_rows: int, seconds: float) -> None:
        """A step of so many rows was computed."""
        expected_s = self.step_s(num_rows)
        is_short = seconds * SUDDEN < expected_s
        if is_short and self._was_short:
            self._forget()
        elif expected_s:
            seconds = min(max(seconds, expected_s / SUDDEN), SUDDEN * expected_s)
        self._was_short = is_short
        self._weight = FORGET * self._weight + 1
        self._rows = FORGET * self._rows + num_rows
        self._squares = FORGET * self._squares + num_rows**2
        self._seconds = FORGET * self._seconds + seconds
        self._products = FORGET * self._products + num_rows * seconds
        rows, mean_s = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - rows**2
        slope = (self._products / self._weight - rows * mean_s) / variance if variance > 0.25 else 0.0
        least = mean_s / (PRIOR_ROWS + rows)  # noise must not make rows free
        self.row_s = max(slope, least)
        self.base_s = max(0.0, mean_s - self.row_s * rows)

    def step_s(self, num_rows: int) -> float:
        """Return the likely duration of a step of so many rows; 0 before any was seen."""
        return self.base_s + self.row_s * num_rows


class PromptTimes:
    """Seconds that a token of a prompt adds to a step: the mean over tokens, in which old steps count ever less."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def took(self, num_tokens: int, seconds: float) -> None:
        """Record that so many tokens were computed in a step, which took so much longer for it."""
        self._tokens = FORGET * self._tokens + num_tokens
        self._seconds = FORGET * self._seconds + seconds

    @property
    def token_s(self) -> float:
        """0 before any was seen."""
        return self._seconds / self._tokens if self._tokens else 0.0
