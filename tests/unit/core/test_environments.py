"""Environments as values."""

from __future__ import annotations

import hashlib

from headrace.core.environments import EnvironmentSpec, trust_digest


def test_the_digest_of_both_is_that_of_their_listing() -> None:
    """As anyone can check with sha256sum."""
    listing = f"{'a' * 64}  model\n{'b' * 64}  requirements.txt\n"
    both = trust_digest(f"sha256:{'a' * 64}", f"sha256:{'b' * 64}")
    assert both == f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
    assert trust_digest("sha256:aa", None) == "sha256:aa"


def test_people_see_enough_of_the_key() -> None:
    assert EnvironmentSpec("0123456789abcdef", (), ()).short == "0123456789ab"
