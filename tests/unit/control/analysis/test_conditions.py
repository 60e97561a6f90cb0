from __future__ import annotations

import pytest

from headrace.control.analysis import conditions
from headrace.core import errors


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("<= 0.2", 0.2, True),
        ("<0.2", 0.2, False),
        (">= 1e-3", 0.002, True),
        ("> 5", 5.0, False),
        ("== 0", 0.0, True),
        ("!= -1.5", -1.5, False),
        ("  >  .5 ", 0.6, True),
    ],
)
def test_conditions(text: str, value: float, holds: bool) -> None:
    assert conditions.parse(text).holds(value) is holds


@pytest.mark.parametrize("text", ["", "0.2", "=> 1", "< one", "< 1 and > 0", "<= 0.2; import os", "< nan"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(errors.BadSettings, match="write a comparison with a number"):
        conditions.parse(text)
