"""Keys: their form, whom they let in to what, and what is told to those they do not."""

from __future__ import annotations

import msgspec
import pytest

from headrace.core import errors, keys
from headrace.core.keys import KeyRecord, KeyRing, KeySet, KeyState, Principal, Scope

SECRET = b"s" * 32
NEW = keys.make_token(bytes(range(40)))
TOKEN = NEW.token.encode()


def record(
    *scopes: Scope, endpoints: tuple[str, ...] = (), expires: float | None = None, revoked: float | None = None
) -> KeyRecord:
    return KeyRecord(
        NEW.id, "ci", scopes, endpoints, keys.digest(SECRET, TOKEN), created=0.0, who="ada", expires=expires,
        revoked=revoked,
    )  # fmt: skip


def ring(*records: KeyRecord) -> KeyRing:
    return KeyRing(KeySet(1, True, SECRET, records))


def principal(*scopes: Scope, endpoints: tuple[str, ...] = ()) -> Principal:
    return ring(record(*scopes, endpoints=endpoints)).check(TOKEN, 1.0)


def test_a_key_holds_256_random_bits_and_its_id() -> None:
    assert NEW.token.startswith(f"hr_{NEW.id}_")
    assert keys.is_id(NEW.id)
    assert keys.looks_like_token(TOKEN)
    others = {keys.make_token(bytes([*range(8), *([n] * 32)])).token for n in range(50)}
    assert len(others) == 50
    # 43 characters of base64 are 258 bits: none of the 256 is cut off.
    last = {keys.make_token(bytes([*range(8), *([0] * 31), n])).token for n in range(256)}
    assert len(last) == 256


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"hr_", TOKEN[:-1], TOKEN + b"x", b" " + TOKEN, TOKEN + b"\n", TOKEN.upper(), b"Bearer " + TOKEN),
        *(TOKEN.replace(b"hr_", b"hs_"), b"\xff" * 59, TOKEN[:-1] + b"\xe9"),
    ],
)
def test_what_has_not_the_form_of_a_key_is_none(text: bytes) -> None:
    assert not keys.looks_like_token(text)
    with pytest.raises(errors.Unauthorized, match="no key of Headrace"):
        ring(record(Scope.ADMIN)).check(text, 0.0)


def test_unknown_ids_and_wrong_secrets_are_told_alike() -> None:
    wrong = TOKEN[:-1] + (b"B" if TOKEN.endswith(b"A") else b"A")
    stranger = keys.make_token(bytes(40)).token.encode()
    said = set()
    for token in (wrong, stranger):
        with pytest.raises(errors.Unauthorized) as caught:
            ring(record(Scope.ADMIN)).check(token, 0.0)
        said.add(caught.value.message)
    assert said == {"this key is not known here"}


def test_a_digest_under_another_secret_lets_nobody_in() -> None:
    with pytest.raises(errors.Unauthorized):
        KeyRing(KeySet(1, True, b"another" * 5, (record(Scope.ADMIN),))).check(TOKEN, 0.0)


def test_an_empty_digest_is_nobodys() -> None:
    """The placeholder that stands for unknown ids is compared, and must never be equal to anything."""
    empty = msgspec.structs.replace(record(Scope.ADMIN), digest=bytes(32))
    with pytest.raises(errors.Unauthorized):
        ring(empty).check(TOKEN, 0.0)


@pytest.mark.parametrize(
    ("expires", "revoked", "now", "state"),
    [
        (None, None, 1e12, KeyState.LIVE),
        (10.0, None, 9.9, KeyState.LIVE),
        (10.0, None, 10.0, KeyState.EXPIRED),
        (10.0, 5.0, 1.0, KeyState.REVOKED),
        (10.0, 5.0, 20.0, KeyState.REVOKED),
    ],
)
def test_states(expires: float | None, revoked: float | None, now: float, state: KeyState) -> None:
    made = record(Scope.ADMIN, expires=expires, revoked=revoked)
    assert made.state(now) is state
    if state is KeyState.LIVE:
        assert ring(made).check(TOKEN, now).expires == expires
        return
    with pytest.raises(errors.Unauthorized, match=rf"key 'ci' \({NEW.id}\) (was revoked|expired 1970-01-01 00:00:10Z)"):
        ring(made).check(TOKEN, now)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ({Scope.PREDICT}, {Scope.PREDICT}),
        ({Scope.METRICS}, {Scope.METRICS}),
        ({Scope.MANAGE}, {Scope.MANAGE, Scope.METRICS}),
        ({Scope.ADMIN}, set(Scope)),
        ({Scope.PREDICT, Scope.METRICS}, {Scope.PREDICT, Scope.METRICS}),
    ],
)
def test_scopes_imply_others(scopes: set[Scope], allowed: set[Scope]) -> None:
    holder = principal(*scopes, endpoints=("fraud",))
    for scope in Scope:
        if scope in allowed:
            holder.check(scope)
        else:
            with pytest.raises(errors.Forbidden, match=f"takes the scope {scope.value}; it may: "):
                holder.check(scope)


@pytest.mark.parametrize(
    ("scope", "patterns", "endpoint", "predicts", "sees"),
    [
        (Scope.PREDICT, ("fraud",), "fraud", True, True),
        (Scope.PREDICT, ("fraud",), "fraud2", False, False),
        (Scope.PREDICT, ("fraud*",), "fraud2", True, True),
        (Scope.PREDICT, ("team-a/*", "x"), "team-a/churn", True, True),
        (Scope.PREDICT, ("team-a/*", "x"), "team-ab/churn", False, False),
        (Scope.PREDICT, ("*",), "anything/at-all", True, True),
        (Scope.MANAGE, (), "fraud", False, True),
        (Scope.METRICS, (), "fraud", False, False),
        (Scope.ADMIN, (), "fraud", True, True),
    ],
)
def test_endpoints(scope: Scope, patterns: tuple[str, ...], endpoint: str, predicts: bool, sees: bool) -> None:
    holder = principal(scope, endpoints=patterns)
    assert holder.sees(endpoint) is sees
    for check, allowed in ((holder.check_predict, predicts), (holder.check_sees, sees)):
        if allowed:
            check(endpoint)
        else:
            with pytest.raises(errors.Forbidden, match=r"key 'ci' .* may not .*; it may: "):
                check(endpoint)


def test_what_a_pattern_has_granted_is_bounded_and_stays_true() -> None:
    holder = principal(Scope.PREDICT, endpoints=("a*",))
    for number in range(2000):
        holder.check_predict(f"a{number}")
    assert len(holder._granted) <= 256
    holder.check_predict("a1999")
    with pytest.raises(errors.Forbidden):
        holder.check_predict("b")


def test_a_claim_without_proof_may_predict_at_most() -> None:
    claimed = ring(record(Scope.ADMIN)).claimed(NEW.id, 0.0)
    claimed.check_predict("anything")
    with pytest.raises(errors.Forbidden):
        claimed.check(Scope.MANAGE)
    managing = ring(record(Scope.MANAGE)).claimed(NEW.id, 0.0)
    assert not managing.scopes
    assert not managing.sees("fraud")
    with pytest.raises(errors.Unauthorized, match="no key with this access key id"):
        ring().claimed(NEW.id, 0.0)
    with pytest.raises(errors.Unauthorized, match="was revoked"):
        ring(record(Scope.ADMIN, revoked=1.0)).claimed(NEW.id, 2.0)


@pytest.mark.parametrize("name", ["a b", "", "-x", "x" * 65, "k7q2mzt4x3ab", "küche", "x\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(errors.BadSettings, match="name of a key"):
        keys.check_name(name)


@pytest.mark.parametrize("pattern", ["fraud", "fraud*", "team-a/*", "team-a/churn", "*", "chat*"])
def test_patterns(pattern: str) -> None:
    assert keys.check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "*a", "a*b", "a b", "**", "chat", "/x", "?"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(errors.BadSettings):
        keys.check_pattern(pattern)


def test_a_set_crosses_a_process_boundary_and_keeps_its_secret_out_of_logs() -> None:
    sent = KeySet(3, True, SECRET, (record(Scope.PREDICT, endpoints=("*",), expires=2.5),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=KeySet) == sent
    assert repr(sent) == str(sent) == "KeySet(version=3, required=True, 1 keys)"
