"""When a gateway has followed, by what its clients saw."""

import pytest

from benchmarks.fleet.rollback import Answered, followed
from benchmarks.processes import ServerFailed


def seen(versions, first=10.0):
    """One answer every hundredth of a second."""
    return [Answered(first + number / 100, version) for number, version in enumerate(versions)]


@pytest.mark.parametrize(
    ("versions", "commanded", "seconds"),
    [
        ("2222111", 10.02, 0.02),  # the request that was sent at 10.04 is the first one of the old version for good
        ("2212111", 10.0, 0.04),  # chance had given one to the old version before
        ("2221111", 10.05, 0.0),
    ],
)
def test_it_has_followed_with_the_request_after_the_last_new_answer(versions, commanded, seconds):
    assert followed(seen(versions), commanded, new="2") == pytest.approx(seconds)


def test_a_gateway_that_never_follows_is_told():
    with pytest.raises(ServerFailed, match="answers on"):
        followed(seen("2222"), 10.0, new="2")


def test_without_a_rollout_nothing_is_measured():
    with pytest.raises(ServerFailed, match="nothing was rolled back"):
        followed(seen("1111"), 10.0, new="2")
