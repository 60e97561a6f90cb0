"""/: where things are, for machines and for browsers."""

from __future__ import annotations

from typing import Any

import msgspec

import headrace
from headrace.core.routes import EndpointRoute


def test_index_as_json(get: Any) -> None:
    document = get("/").json()
    assert (document["name"], document["version"], document["ready"]) == ("headrace", headrace.__version__, True)


def test_every_link_leads_somewhere(get: Any) -> None:
    links = get("/").json()["links"]
    assert {path: get(path).status_code for path in links.values()} == dict.fromkeys(links.values(), 200)


def test_index_for_browsers_escapes_names(get: Any, controller: Any) -> None:
    controller.table = msgspec.structs.replace(controller.table, endpoints=(EndpointRoute('<script>"x"', (), {}),))
    answer = get("/", Accept="text/html,application/xhtml+xml")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "/metrics" in answer.text
