"""Handlers of TorchServe archives, run: what they are given, what may come back, and what is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from headrace.core import errors
from headrace.replica import execution
from headrace.runtimes import table, torchserve, trust
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models
from tests import torchserve as archives

Make = Callable[..., Runtime]


@pytest.fixture(autouse=True)
def as_in_a_worker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Archives leave their modules in the process, and refuse those of others: here every test begins without any."""
    monkeypatch.setattr(torchserve, "_modules", {})
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("labels", "shared_part"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A loaded archive with this handler; keyword arguments are files of the archive, ``options`` those of loading."""

    def loaded(handler: str, options: dict[str, str] | None = None, **files: Any) -> Runtime:
        artifact = inspect(archives.archive(tmp_path / "archive", handler, **files))
        scratch = str(tmp_path / "scratch")
        return table.load(artifact, LoadOptions(options={trust.OPTION: "yes", **(options or {})}, scratch=scratch))

    return loaded


def rows(*items: bytes) -> dict[str, Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return {"data": array}


def answers(runtime: Runtime, *items: bytes, **parameters: Any) -> list[Any]:
    return [json.loads(item) for item in runtime.predict(rows(*items), parameters)["output"]]


def test_a_class_with_its_model_answers_as_the_model_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = models.build("xgboost-ubj")
    artifact = inspect(archives.fraud(tmp_path, model))
    with pytest.raises(errors.UntrustedArtifact, match="handler is Python code of whoever made it"):
        table.load(artifact, LoadOptions())
    runtime = table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))
    features = models.inputs("xgboost-ubj", 6)["input"]
    bodies = [json.dumps(row.tolist()).encode() for row in features]
    found = answers(runtime, *bodies)
    expected = xgboost.Booster(model_file=model).predict(xgboost.DMatrix(features))
    np.testing.assert_allclose([answer["score"] for answer in found], expected + 1, rtol=1e-6)
    assert [answer["label"] for answer in found] == [("malignant", "benign")[int(p > 0.5)] for p in expected]
    assert answers(runtime, *bodies, content_type="application/json") == found
    assert capfd.readouterr().err.count("metrics that this TorchServe handler adds are not collected") == 1
    assert runtime.metadata["model_version"] == "2.1"


def test_a_status_that_the_handler_sets_fails_its_request_only(tmp_path: Path) -> None:
    artifact = inspect(archives.fraud(tmp_path, models.build("xgboost-ubj")))
    runtime = table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))
    good = json.dumps([0.0] * 30).encode()
    batch = rows(good, b'{"fail": 422}', good, b'{"fail": 503}')
    computed = execution.run_batch(runtime, batch, [1, 1, 1, 1], {}, idempotent=True)
    assert [(failure.index, failure.code) for failure in computed.failures] == [
        (1, "invalid_input"),
        (3, "model_raised"),
    ]
    assert "status 422 told to fail" in computed.failures[0].message
    assert len(computed.outputs["output"]) == 2


SEEN = """\
def handle(data, context):
    if data is None:
        context.system_properties["started"] = "yes"
        return None
    assert context.system_properties["started"] == "yes"
    first = next(iter(data[0].items()))
    return [
        {
            "key": first[0], "type": type(first[1]).__name__, "rows": len(data), "id": len(context.get_request_id(i)),
            "header": context.get_request_header(i, "content-type"), "gpu": context.system_properties["gpu_id"],
            "other": context.get_all_request_header(i).get("x-token"), "model": context.manifest["model"]["modelName"],
        }
        for i in range(len(data))
    ]
"""


@pytest.mark.parametrize(
    ("content_type", "seen"),
    [
        (None, "bytearray"),
        ("image/png", "bytearray"),
        ("text/plain; charset=utf-8", "str"),
        ("application/json", "int"),
    ],
)
def test_a_function_sees_what_torchserve_would_show_it(make: Make, content_type: str | None, seen: str) -> None:
    runtime = make(SEEN, name="seen")
    parameters = {} if content_type is None else {"content_type": content_type}
    first, second = answers(runtime, b"12", b"13", **parameters)
    assert first == second
    expected = {"key": "body", "type": seen, "rows": 2, "id": 36, "header": content_type}
    assert first == expected | {"gpu": None, "other": None, "model": "seen"}


def test_options_set_the_key_and_the_content_type(make: Make) -> None:
    runtime = make(SEEN, {"field": "data", "content_type": "application/json"})
    [found] = answers(runtime, b"[1]")
    assert (found["key"], found["type"]) == ("data", "list")
    assert answers(runtime, b"[1]", content_type="text/plain")[0]["type"] == "str"
    with pytest.raises(errors.InvalidInput, match="row 1 of 'data' is no application/json"):
        answers(runtime, b"[1]", b"[")
    with pytest.raises(errors.BadSettings, match="did you mean 'field'"):
        make(SEEN, {"feild": "data"})


@pytest.mark.parametrize(
    ("handler", "files"),
    [
        ("def run(data, context):\n    return data and [b'ok'] * len(data)\n", {"entry": "run"}),
        ("class One:\n    def handle(self, data, _):\n        return ['ok']\nclass Two(One): pass\n", {}),
        ("class A:\n    def handle(self, d, c):\n        return ['ok']\nclass B(A):\n    pass\n", {"entry": "A"}),
        ("def preprocess(x): ...\nclass A:\n    def preprocess(self, d): return d\n"
         "    def inference(self, d): return ['ok']\n    def postprocess(self, d): return d\n", {}),
    ],
    ids=["named function", "derived class", "named class", "three steps"],
)  # fmt: skip
def test_every_form_of_handler(make: Make, handler: str, files: dict[str, str]) -> None:
    assert make(handler, **files).predict(rows(b"x"), {})["output"].tolist() == [b"ok"]


@pytest.mark.parametrize(
    ("handler", "files", "message"),
    [
        ("x = 1\n\n", {}, "neither a function handle"),
        ("class A:\n    def handle(s): ...\nclass B:\n    def handle(s): ...\n", {}, r"several handlers \(A, B\)"),
        ("class A:\n    def preprocess(self, d): ...\n", {}, "no handle, and no inference or postprocess"),
        ("handle = 3\n\n", {}, "is no function"),
        ("def handle(d, c): ...\n", {"entry": "run"}, "has no 'run'"),
        ("import no_such_package\n\n", {}, "needs 'no_such_package', which is not installed"),
        ("from ts.torch_handler.base_handler import BaseHandler\n\n", {}, "pip install torchserve"),
        ("def handle(d, c):\n    raise OSError('no weights')\n", {}, r"handler.py line 2: OSError: no weights"),
        ("class A:\n    def initialize(self, c): c.get_request_header(0, 'x')\n    def handle(self, d, c): ...\n",
         {}, "still being initialized"),
    ],
)  # fmt: skip
def test_handlers_that_cannot_start_say_why(
    make: Make, tmp_path: Path, handler: str, files: dict[str, str], message: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=message):
        make(handler, **files)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["lock"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="with PyTorch the handler would be run")
def test_a_handler_of_torchserve_itself_names_what_it_needs(make: Make, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"w")
    with pytest.raises(
        errors.LoadFailed, match=r"uses TorchServe's 'image_classifier'.* ts is missing: pip install torch"
    ):
        make("image_classifier", serialized_file=weights)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "a NoneType for 1 requests"),
        ("{'a': 1}", "a dict for 1 requests"),
        ("['a', 'b']", "2 answers for 1 requests"),
        ("[object()]", "answer 0 of the handler is a object that cannot be written as JSON"),
    ],
)
def test_answers_that_do_not_fit_are_refused(make: Make, returned: str, message: str) -> None:
    runtime = make(f"def handle(data, context):\n    return {returned}\n")
    with pytest.raises(errors.BadModelOutput, match=message):
        runtime.predict(rows(b"x"), {})


def test_bytes_come_back_as_they_are(make: Make) -> None:
    runtime = make("def handle(data, context):\n    return data and [bytes(row['body'])[::-1] for row in data]\n")
    assert runtime.predict(rows(b"\xff\x00", b"ab"), {})["output"].tolist() == [b"\x00\xff", b"ba"]


def test_an_archive_that_was_exchanged_is_not_run(tmp_path: Path) -> None:
    path = archives.archive(tmp_path / "a", "def handle(data, context): ...\n")
    artifact = inspect(path)
    archives.archive(tmp_path / "b", "def handle(data, context):\n    return None\n").replace(path)
    with pytest.raises(errors.UntrustedArtifact, match="changed after it was inspected"):
        table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))


def test_archives_with_modules_of_one_name_do_not_share_a_process(make: Make, tmp_path: Path) -> None:
    shared = tmp_path / "shared_part.py"
    shared.write_text("VALUE = 1\n")
    handler = "import shared_part\n\ndef handle(data, context):\n    return data and [str(shared_part.VALUE)]\n"
    first = make(handler, extra_files=shared)
    with pytest.raises(errors.LoadFailed, match="module 'shared_part' too; keep them apart with isolation: process"):
        make(handler, name="other", extra_files=shared)
    assert first.predict(rows(b"x"), {})["output"].tolist() == [b"1"]


def test_files_go_when_the_model_is_closed(make: Make, tmp_path: Path) -> None:
    runtime = make(
        "def handle(data, context):\n    return [context.system_properties['model_dir']] * len(data or [])\n"
    )
    folder = Path(runtime.predict(rows(b"x"), {})["output"][0].decode())
    assert (folder / "MAR-INF" / "MANIFEST.json").is_file()
    assert folder.parent == tmp_path / "scratch"
    runtime.close()
    assert not folder.exists()
