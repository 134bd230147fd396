"""A circuit breaker for what a caller can do without."""

import time
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field


class BreakerConfig(BaseModel):
    """When to stop asking a dependency that does not answer. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=3, ge=1)
    """Consecutive failures after which it is left alone."""
    pause_s: float = Field(default=1.0, gt=0)
    """How long it is left alone before one batch tries again."""


class CircuitBreaker:
    """Closed, then open after consecutive failures, then half-open: one caller tries (Nygard, 2007)."""

    def __init__(self, config: BreakerConfig | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config or BreakerConfig()
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    @property
    def open(self) -> bool:
        return self._failures >= self.config.failures

    def allows(self) -> bool:
        """Whether to make the call. While open, one caller in each `pause_s` is let through."""
        if not self.open:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + self.config.pause_s
        return True

    def succeeded(self) -> bool:
        """Note that a call was answered; whether that closes the breaker."""
        was_open = self.open
        self._failures = 0
        return was_open

    def failed(self) -> bool:
        """Note that a call was not answered; whether that opens the breaker."""
        was_open = self.open
        self._failures += 1
        self._retry_at = self._clock() + self.config.pause_s
        return self.open and not was_open
