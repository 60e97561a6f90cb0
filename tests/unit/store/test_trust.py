"""Trust by digest."""

from __future__ import annotations

from headrace.core.versions import TrustGrant
from headrace.store.state import State


def test_the_first_grant_of_a_digest_stays(state: State) -> None:
    first = TrustGrant("sha256:aa", "ada", 1.0)
    with state.writing() as transaction:
        assert transaction.trust.of("sha256:aa") is None
        transaction.trust.grant(first)
        transaction.trust.grant(TrustGrant("sha256:aa", "bob", 2.0))
    with state.reading() as transaction:
        assert transaction.trust.of("sha256:aa") == first
        assert transaction.trust.of("sha256:bb") is None


def test_a_grant_can_be_taken_back(state: State) -> None:
    with state.writing() as transaction:
        transaction.trust.grant(TrustGrant("sha256:aa", "ada", 1.0))
        transaction.trust.revoke("sha256:aa")
        assert transaction.trust.of("sha256:aa") is None
