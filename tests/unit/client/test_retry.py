"""When calls are tried again, as a table."""

from __future__ import annotations

import pytest

from headrace.client.retry import RetryPolicy, delay_before_retry
from headrace.core import errors

POLICY = RetryPolicy(retries=3, base_s=0.1, cap_s=0.3, longest_wait_s=60)


def refused(retry_after: float | None) -> errors.HeadraceError:
    error = errors.Overloaded("full")
    error.retry_after = retry_after  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("error", "attempt", "left", "random", "delay"),
    [
        (refused(None), 1, 9.0, 0.5, 0.05),
        (refused(None), 2, 9.0, 0.5, 0.1),
        (refused(None), 3, 9.0, 1.0, 0.3),  # the cap
        (refused(None), 4, 9.0, 0.5, None),  # no attempts left
        (refused(2.0), 1, 9.0, 0.5, 2.05),  # never sooner than asked
        (refused(0.0), 1, 9.0, 0.0, 0.0),
        (refused(2.0), 1, 1.0, 0.5, None),  # the call's time would be over
        (refused(600.0), 1, 9999.0, 0.5, None),  # asks for more than anyone waits
        (errors.NotReady("x", retry_after=0.5), 1, 9.0, 0.0, 0.5),
        (errors.QuotaExceeded("x", retry_after=1.0), 1, 9.0, 0.0, 1.0),
        (errors.InvalidInput("x"), 1, 9.0, 0.5, None),
        (errors.ModelRaised("x"), 1, 9.0, 0.5, None),
        (errors.ReplicaDied("x"), 1, 9.0, 0.5, None),  # it may have run
        (errors.DeadlineExceeded("x"), 1, 9.0, 0.5, None),
    ],
)
def test_delays(error: errors.HeadraceError, attempt: int, left: float, random: float, delay: float | None) -> None:
    assert delay_before_retry(POLICY, error, attempt, left, random) == (None if delay is None else pytest.approx(delay))


def test_no_retries_when_turned_off() -> None:
    assert delay_before_retry(RetryPolicy(retries=0), refused(None), 1, 9.0, 0.5) is None
