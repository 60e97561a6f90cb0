"""Keys as they are shown: without what proves them."""

from __future__ import annotations

import msgspec

from headrace.core.key_views import IssuedKey, KeyView
from headrace.core.keys import KeyState, Scope
from tests.issued import key

MADE = key("ci", Scope.PREDICT, endpoints=("a/*",), expires=10.0)


def test_a_view_has_everything_but_the_digest() -> None:
    view = KeyView.of(MADE.record, 9.0)
    assert (view.id, view.name, view.state, view.endpoints) == (MADE.record.id, "ci", KeyState.LIVE, ("a/*",))
    assert KeyView.of(MADE.record, 10.0).state is KeyState.EXPIRED
    assert MADE.record.digest.hex() not in str(msgspec.to_builtins(view))
    assert set(msgspec.to_builtins(view)) == {*msgspec.to_builtins(MADE.record), "state"} - {"digest"}


def test_a_new_key_does_not_print_its_secret() -> None:
    issued = IssuedKey.of(MADE.record, 0.0, key=MADE.token)
    assert MADE.token not in f"{issued} {issued!r}"
    assert msgspec.json.decode(msgspec.json.encode(issued), type=IssuedKey) == issued
