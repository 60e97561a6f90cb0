"""The application as a whole: its document, and errors that no route makes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

METHODS = {"get", "post", "put", "delete", "patch", "head"}


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_the_openapi_document_describes_every_route(get: Any) -> None:
    document = get("/api/v1/openapi.json").json()
    assert document["info"]["title"] == "Headrace management API"
    found = operations(document)
    assert {path for path, _ in found} == {
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/endpoints",
        "/api/v1/endpoints/{name}",
        "/api/v1/deployments/{id}/batching",
        "/api/v1/replicas",
        "/api/v1/replicas/{id}/log",
        "/api/v1/events",
        "/api/v1/models",
        "/api/v1/models/{model}",
        "/api/v1/models/{model}/versions",
        "/api/v1/models/{model}/versions/{choice}",
        "/api/v1/models/{model}/versions/{choice}/verify",
        "/api/v1/models/{model}/versions/{choice}/trust",
        "/api/v1/models/{model}/aliases",
        "/api/v1/models/{model}/aliases/{alias}",
        "/api/v1/models/{model}/history",
        "/api/v1/artifacts/{digest}",
        "/api/v1/gc",
        "/api/v1/changes",
    }
    for path, operation in found:
        assert operation["summary"], path
        assert operation["tags"], path
        assert "HTTPValidationError" not in str(operation), path


def test_every_document_of_the_api_says_what_it_is(get: Any) -> None:
    schemas = get("/api/v1/openapi.json").json()["components"]["schemas"]
    assert {"Endpoint", "Replica", "Batching", "Events"} <= set(schemas)
    assert [
        name for name, schema in schemas.items() if schema["type"] == "object" and not schema.get("description")
    ] == []


def test_errors_are_declared_as_problem_documents(get: Any) -> None:
    document = get("/api/v1/openapi.json").json()
    missing = document["paths"]["/api/v1/endpoints/{name}"]["get"]["responses"]["404"]
    assert missing["content"]["application/problem+json"]["schema"]["title"] == "Problem"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("GET", "/api/v1/replicas/", 404, "not_found"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/endpoints/fraud", 405, "method_not_allowed"),
    ],
)
def test_errors_of_the_framework_are_problems(get: Any, method: str, path: str, status: int, code: str) -> None:
    answer = get(path, method)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["instance"], document["code"]) == (status, path, code)
    if status == 405:
        assert answer.headers["allow"] == "GET"
        assert "it takes GET" in document["detail"]


def test_importing_the_application_does_not_import_the_data_plane() -> None:
    program = (
        "import sys, headrace.api.app\n"
        "heavy = {'h2corn', 'uvloop', 'google.protobuf', 'onnxruntime', 'sklearn', 'pandas', 'structlog', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
