"""/api/v1/models/MODEL/versions: what is registered is what the server found, whatever the client said."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from headrace.api.registry_schema import Version, Versions
from headrace.protocols import golden_lines
from tests import models


def file_of(api: Any, path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "digest": api.store(content), "size": len(content)}


def test_a_version_from_registering_to_deleting(any_api: Any) -> None:
    made = any_api.register(metrics={"auc": 0.9}, alias="champion", source="/m", headers={"X-Headrace-User": "ada@x"})
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/models/fraud/versions/1"
    version = Version.model_validate_json(made.content, strict=True)
    assert (version.ref, version.aliases, version.runnable, version.artifact.format) == (
        "fraud@1",
        ["champion"],
        True,
        "echo",
    )
    assert (version.provenance.who, version.provenance.metrics) == ("ada@x", {"auc": 0.9})
    by_alias = any_api("GET", "/models/fraud/versions/champion")
    assert by_alias.content == made.content
    assert by_alias.headers["etag"] == made.headers["etag"]
    assert any_api("DELETE", "/models/fraud/versions/1").json()["code"] == "precondition_required"
    tag = made.headers["etag"]
    assert any_api("DELETE", "/models/fraud/versions/1", headers={"If-Match": tag}).json()["code"] == "conflict"
    any_api("DELETE", "/models/fraud/aliases/champion", headers={"If-Match": "*"})
    late = any_api("DELETE", "/models/fraud/versions/1", headers={"If-Match": tag})
    assert late.status_code == 412, "the version shows its aliases, and has another one now"
    gone = any_api("DELETE", "/models/fraud/versions/1", headers={"If-Match": "*"})
    assert [entry["ref"] for entry in gone.json()["deleted"]] == ["fraud@1"]
    assert any_api("GET", "/models/fraud/versions/1").status_code == 404


def test_versions_come_newest_first_in_pages(api: Any) -> None:
    for _ in range(5):
        api.register()
    seen: list[int] = []
    cursor = ""
    while True:
        page = api("GET", f"/models/fraud/versions?limit=2{cursor}").json()
        seen += [version.number for version in Versions.model_validate(page, strict=True).versions]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [5, 4, 3, 2, 1]
    assert api("GET", "/models/other/versions").status_code == 404


def test_numbers_of_a_repository_are_kept(api: Any) -> None:
    assert api.register(number=7).json()["ref"] == "fraud@7"
    assert api.register(number=7).json()["ref"] == "fraud@7", "the same content is the same version"
    other = api.register(content=b"headrace-echo 1\n ", number=7)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_code_is_found_by_the_server(api: Any, tmp_path: Path) -> None:
    content = models.build("sklearn-pickle", tmp_path).read_bytes()
    file = file_of(api, "model/model.pkl", content)
    made = api("POST", "/models/risk/versions", json={"path": "model/model.pkl", "files": [file]}).json()
    assert made["artifact"]["code_bearing"] is True
    assert made["runnable"] is False
    assert made["trust"] is None
    again = api("POST", "/models/risk/versions", json={"path": "model/model.pkl", "files": [file], "trusted": True})
    assert again.json()["runnable"] is True


def test_a_folder_with_what_accompanies_it(api: Any, tmp_path: Path) -> None:
    folder = models.build("mlflow-xgboost", tmp_path)
    (folder / "requirements.txt").write_text("mlflow==3.1.0\n")
    files = [
        file_of(api, f"model/{path.relative_to(folder).as_posix()}", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    ]
    files.append(file_of(api, "golden.jsonl", golden_lines.EXAMPLE.encode()))
    files.append(file_of(api, "reference.parquet", b"PAR1 rows PAR1"))
    signature = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 30]}], "outputs": []}
    body = {
        "path": "model",
        "files": files,
        "golden": "golden.jsonl",
        "reference": "reference.parquet",
        "signature": signature,
    }
    made = api("POST", "/models/fraud/versions", json=body)
    assert made.status_code == 201, made.text
    version = Version.model_validate_json(made.content, strict=True)
    assert (version.artifact.flavor, version.provenance.packages["mlflow"]) == ("xgboost", "3.1.0")
    assert version.signature is not None
    assert version.signature.inputs[0].name == "x"


ECHO = b"headrace-echo 1\n"


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"path": "model/other"}, 400, "not among the version's files"),
        ({"path": "model"}, 400, "do not belong|holds|format|model"),
        ({"path": "../m.echo"}, 400, "no path of a version's file"),
        ({"path": "/etc/passwd"}, 400, "no path of a version's file"),
        ({"add": ("model/extra.bin", b"x")}, 400, "do not belong to the model model/m.echo: model/extra.bin"),
        ({"add": ("elsewhere/x", b"x")}, 400, "no path of a version's file"),
        ({"add": ("model/../../x", b"x")}, 400, "no path of a version's file"),
        ({"add": ("model/a\\b", b"x")}, 400, "no path of a version's file"),
        ({"add": ("model/a\x00b", b"x")}, 400, "no path of a version's file"),
        ({"add": ("model/m.echo/x", b"x")}, 400, "cannot be a file and the folder"),
        ({"add": ("model/m.echo", b"x")}, 400, "the same path"),
        ({"add": ("golden.jsonl", b"{}\n")}, 400, "exactly when golden names it"),
        ({"golden": "golden.jsonl"}, 400, "exactly when golden names it"),
        ({"golden": "model/m.echo"}, 400, "golden must be"),
        ({"golden": "golden.jsonl", "add": ("golden.jsonl", b"no json\n")}, 400, "golden.jsonl, line 1"),
        ({"reference": "reference.parquet", "add": ("reference.parquet", b"x")}, 400, "no Parquet file"),
        ({"content": b"nothing known"}, 501, "model/m.echo: this is a text of no known model format"),
        ({"content": b""}, 400, "model/m.echo: the file is empty"),
        ({"digest": "sha256:" + "0" * 64}, 404, "is not stored: send it first"),
        ({"digest": "sha256:../../x"}, 400, "no digest"),
        ({"size": 99}, 400, "has 16 bytes, not 99"),
        ({"signature": {"inputs": [{"name": "x", "dtype": "FP99", "shape": [1]}], "outputs": []}}, 400, "FP99"),
        ({"alias": "7"}, 400, "alias '7' is not valid"),
        ({"number": 0}, 422, "number"),
        ({"unknown": 1}, 422, "unknown"),
        ({"source": "a\x00b"}, 422, "NUL"),
        ({"attribute": "Pricer"}, 400, "model/m.echo:Pricer does not exist"),
        ({"artifact": {"format": "onnx"}}, 422, "artifact"),
    ],
)
def test_nothing_is_believed(api: Any, change: dict[str, Any], status: int, says: str) -> None:
    content = change.pop("content", ECHO)
    file = file_of(api, "model/m.echo", content)
    file |= {key: change.pop(key) for key in ("digest", "size") if key in change}
    files = [file]
    if "add" in change:
        files.append(file_of(api, *change.pop("add")))
    refused = api("POST", "/models/fraud/versions", json={"path": "model/m.echo", "files": files, **change})
    assert refused.status_code == status, refused.text
    assert re.search(says, refused.json()["detail"]), refused.text
    assert tempfile.gettempdir() not in refused.text, "where the server looked at it concerns nobody"
    assert api("GET", "/models").json()["models"] == []


def test_metrics_are_numbers(api: Any) -> None:
    body = b'{"path": "model/m", "files": [{"path": "model/m", "digest": "x", "size": 1}], "metrics": {"auc": NaN}}'
    refused = api("POST", "/models/fraud/versions", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert "metrics" in refused.json()["detail"]


def test_damage_is_found(api: Any, tmp_path: Path) -> None:
    digest = api.register().json()["files"][0]["digest"]
    assert api("POST", "/models/fraud/versions/1/verify").json() == {"version": "fraud@1", "ok": True, "problems": []}
    blob = tmp_path / "artifacts" / "sha256" / digest[7:9] / digest[7:]
    blob.write_bytes(b"?" * 16)
    found = api("POST", "/models/fraud/versions/1/verify").json()
    assert found["ok"] is False
    assert "model/m.echo" in found["problems"][0]
    again = api("POST", "/models/fraud/versions", json={"path": "model/m.echo", "files": api_files(digest)})
    assert (again.status_code, again.json()["code"]) == (500, "corrupted")


def api_files(digest: str) -> list[dict[str, Any]]:
    return [{"path": "model/m.echo", "digest": digest, "size": 16}]
