"""A POST that is sent again is answered again, and nothing happens again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.core import answers, errors
from headrace.store.models import Models

KEY = {"Idempotency-Key": "b1946ac9-2f4f"}


def test_the_same_request_gets_the_same_answer(any_api: Any) -> None:
    first = any_api.register(headers=KEY)
    again = any_api.register(headers=KEY)
    assert again.status_code == first.status_code == 201
    assert again.content == first.content
    assert (again.headers["etag"], again.headers["location"]) == (first.headers["etag"], first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    assert any_api("GET", "/models/fraud").json()["versions"] == 1
    assert any_api.register().json()["number"] == 2, "without a key it is another one"


def test_another_request_under_the_key_is_refused(api: Any) -> None:
    api.register(headers=KEY)
    for refused in (api.register(headers=KEY, source="/other"), api.register("churn", headers=KEY)):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    other = {**KEY, "X-Headrace-User": "bob@x"}
    assert api.register(headers=other, source="/other").status_code == 201, "keys belong to their callers"


def test_a_failure_is_not_kept(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:

        def fail(*_: Any) -> None:
            raise errors.StoreFailed("the disk is gone")

        broken.setattr(Models, "add", fail)
        failed = api.register(headers=KEY)
        assert (failed.status_code, failed.json()["code"], failed.json()["detail"]) == (
            500,
            "store_failed",
            "the disk is gone",
        )
    assert api.register(headers=KEY).status_code == 201


def test_a_key_is_forgotten_after_its_time(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    api.register(headers=KEY)
    monkeypatch.setattr("headrace.store.answers.KEPT_S", -1.0)
    assert api.register(headers=KEY).json()["number"] == 2
    assert answers.KEPT_S == 86_400


def test_the_same_request_twice_at_once_happens_once(any_api: Any) -> None:
    any_api.store(b"headrace-echo 1\n")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: any_api.register(headers=KEY), range(4)))
    done = [answer for answer in found if answer.status_code == 201]
    assert done
    assert {answer.content for answer in done} == {done[0].content}
    assert {answer.json()["code"] for answer in found if answer.status_code != 201} <= {"state_in_use"}
    assert any_api("GET", "/models/fraud").json()["versions"] == 1


def test_other_posts_have_keys_too(api: Any, tmp_path: Any) -> None:
    api.register()
    api("DELETE", "/models/fraud", headers={"If-Match": "*"})
    first = api("POST", "/gc", json={"grace_s": 0}, headers=KEY)
    assert first.json()["files"] == 1
    assert api("POST", "/gc", json={"grace_s": 0}, headers=KEY).content == first.content
    assert api("POST", "/gc", json={"grace_s": 0}).json()["files"] == 0
    api.register()
    key = {"Idempotency-Key": "verify"}
    verified = api("POST", "/models/fraud/versions/2/verify", headers=key)
    assert api("POST", "/models/fraud/versions/2/verify", headers=key).content == verified.content


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_keys_that_are_none(api: Any, key: str) -> None:
    assert api.register(headers={"Idempotency-Key": key}).status_code == 422
