"""The state of a circuit breaker: calls to another service are refused while it is down."""

import time
from collections.abc import Callable


class Circuit:
    """Count the failures in a row of one other service.

    The circuit is closed at first: every call may run. Too many failures in a row open it: no call
    may run during a pause. After each pause one call may run, and its success closes the circuit.

    Args:
        max_failures: failures in a row that open the circuit.
        pause_seconds: the time between two calls while it is open.
        clock: returns seconds, which never decrease.
    """

    def __init__(
        self,
        *,
        max_failures: int,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pause_seconds = pause_seconds
        self._max_failures = max_failures
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def allows_call(self) -> bool:
        """Return whether a call may run now. Record how it ends."""
        if self._failures < self._max_failures:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        # Only this call may run in the next pause. If it is cancelled, another one follows.
        self._open_until = now + self.pause_seconds
        return True

    def record_success(self) -> None:
        self._failures = 0

    def record_failure(self) -> None:
        self._failures += 1
        self._open_until = self._clock() + self.pause_seconds
