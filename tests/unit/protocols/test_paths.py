"""The path grammar: every served path, names with slashes, and what is no path."""

from __future__ import annotations

import pytest

from headrace.protocols.paths import Match, Operation, match


@pytest.mark.parametrize(
    ("path", "operation", "protocol", "methods"),
    [
        ("/", Operation.ROOT, "v1", ("GET", "HEAD")),
        ("/ping", Operation.PING, "v1", ("GET", "HEAD")),
        ("/health", Operation.HEALTH, "v1", ("GET", "HEAD")),
        ("/v1/models", Operation.V1_LIST, "v1", ("GET",)),
        ("/v1/models/", Operation.V1_LIST, "v1", ("GET",)),
        ("/v2", Operation.SERVER_METADATA, "oip", ("GET",)),
        ("/v2/", Operation.SERVER_METADATA, "oip", ("GET",)),
        ("/v2/health/live", Operation.SERVER_LIVE, "oip", ("GET", "HEAD")),
        ("/v2/health/ready", Operation.SERVER_READY, "oip", ("GET", "HEAD")),
        ("/v2/models", Operation.MODEL_LIST, "oip", ("GET",)),
        ("/v2/models/stats", Operation.ALL_STATISTICS, "oip", ("GET",)),
        ("/v2/repository/index", Operation.REPOSITORY_INDEX, "oip", ("POST",)),
    ],
)
def test_paths_without_a_model(path: str, operation: Operation, protocol: str, methods: tuple[str, ...]) -> None:
    assert match(path) == (operation, protocol, "", "", methods)


SUFFIXES = [
    ("", Operation.MODEL_METADATA, ("GET",)),
    ("/ready", Operation.MODEL_READY, ("GET", "HEAD")),
    ("/infer", Operation.INFER, ("POST",)),
    ("/config", Operation.MODEL_CONFIG, ("GET",)),
    ("/stats", Operation.MODEL_STATISTICS, ("GET",)),
    ("/generate", Operation.GENERATE, ("POST",)),
    ("/generate_stream", Operation.GENERATE_STREAM, ("POST",)),
]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("m", "m"),
        ("org/name", "org/name"),
        ("org%2Fname", "org/name"),
        ("a/b/c", "a/b/c"),
        ("my%20model", "my model"),
        ("%C3%A9", "é"),
    ],
)
@pytest.mark.parametrize(("version_path", "version"), [("", ""), ("/versions/3", "3"), ("/versions/v1.2", "v1.2")])
@pytest.mark.parametrize(("suffix", "operation", "methods"), SUFFIXES)
def test_oip_model_paths(
    raw: str, name: str, version_path: str, version: str, suffix: str, operation: Operation, methods: tuple[str, ...]
) -> None:
    assert match(f"/v2/models/{raw}{version_path}{suffix}") == Match(operation, "oip", name, version, methods)


@pytest.mark.parametrize(("raw", "name"), [("m", "m"), ("org/name", "org/name"), ("org%2Fname", "org/name")])
@pytest.mark.parametrize(("version_path", "version"), [("", ""), ("/versions/3", "3")])
def test_v1_model_paths(raw: str, name: str, version_path: str, version: str) -> None:
    path = f"/v1/models/{raw}{version_path}"
    assert match(path) == Match(Operation.V1_MODEL, "v1", name, version, ("GET",))
    assert match(f"{path}:predict") == Match(Operation.V1_PREDICT, "v1", name, version, ("POST",))
    assert match(f"{path}%3Apredict") == Match(Operation.V1_PREDICT, "v1", name, version, ("POST",))


@pytest.mark.parametrize("word", ["ready", "infer", "config", "generate", "versions"])
def test_a_known_word_alone_is_a_name(word: str) -> None:
    found = match(f"/v2/models/{word}")
    assert found is not None
    assert (found.operation, found.model) == (Operation.MODEL_METADATA, word)
    found = match(f"/v2/models/{word}/infer")
    assert found is not None
    assert (found.operation, found.model) == (Operation.INFER, word)


def test_an_encoded_slash_never_makes_an_operation() -> None:
    found = match("/v2/models/m%2Finfer")
    assert found is not None
    assert (found.operation, found.model) == (Operation.MODEL_METADATA, "m/infer")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/v3",
        "/v2/health",
        "/v2/models//infer",
        "/v2/models/m/versions",
        "/v2/models/m/versions//infer",
        "/v2/models/m/versions/1/2/infer",
        "/v2/models/m//versions/1",
        "/v1/models/:predict",
        "/v1/models/m:classify",
        "/v1/models/m/versions/:predict",
        "/v1/models/m/versions:predict",
        "/docs",
        "*",
        "/V2/models",
    ],
)
def test_what_is_no_path(path: str) -> None:
    assert match(path) is None
