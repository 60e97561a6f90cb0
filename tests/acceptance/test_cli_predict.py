"""``headrace predict`` against a live server: files, stdin, pairs and streams in; answers and exit codes out."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest

from tests import models
from tests.acceptance.test_cli_serve import headrace
from tests.serving import Served, served

pytestmark = pytest.mark.xdist_group("cli-predict")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("predict")
    paths = [models.build(kind, folder / kind) for kind in ("python", "python-stream", "sklearn-skops", "onnx")]
    with served(*paths, directory=folder / "run") as running:
        yield running


def predict(
    server: Served, *arguments: str | Path, cwd: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return headrace("predict", *arguments, cwd=cwd, stdin=stdin, environment={"HEADRACE_URL": server.url})


def test_data_on_the_command_line(server: Served, tmp_path: Path) -> None:
    result = predict(server, "pricer", "--data", '{"sku": ["apple", "küche"], "qty": [2, 1]}', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"model": "pricer", "version": "1", "outputs": {"price": [3.0, 99.5]}}


def test_pairs_and_arrays(server: Served, tmp_path: Path) -> None:
    result = predict(server, "pricer", "--input", "sku=pear", "--input", "qty=3", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["outputs"] == {"price": [6.0]}
    rows = models.inputs("onnx", 2)["X"]
    np.save(tmp_path / "rows.npy", rows)
    result = predict(server, "cancer", "-i", "X=@rows.npy", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["outputs"]["label"]) == 2


@pytest.mark.parametrize("how", ["csv", "jsonl", "json", "stdin csv", "stdin jsonl"])
def test_rows_from_files_and_stdin(server: Served, tmp_path: Path, how: str) -> None:
    """2,500 rows in requests of 1,000; the answers come in order, the same from every form."""
    rows = [{"sku": ["apple", "pear", "küche"][n % 3], "qty": n} for n in range(2500)]
    price = {"apple": 1.5, "pear": 2.0, "küche": 99.5}
    kind = how.rpartition(" ")[2]
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["sku", "qty"])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    stdin = path.read_text(encoding="utf-8") if how.startswith("stdin") else None
    source = "-" if stdin is not None else path
    result = predict(server, "pricer", source, "--output", "jsonl", cwd=tmp_path, stdin=stdin)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line)["price"] for line in result.stdout.splitlines()]
    assert answers == [price[str(row["sku"])] * int(str(row["qty"])) for row in rows]


def test_a_frame_model_takes_named_columns_of_a_csv(server: Served, tmp_path: Path) -> None:
    columns = models.mixed_columns(50, seed=3)
    names = list(models.MIXED_COLUMNS)
    lines = [",".join(names)] + [",".join(str(columns[name][row]) for name in names) for row in range(50)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    endpoint = models.build("sklearn-skops").stem
    result = predict(server, endpoint, "rows.csv", "--output", "jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = models.mixed_pipeline().predict(pandas.DataFrame(columns)[names])
    labels = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    assert labels == list(expected)


def test_a_stream_is_printed_as_it_comes(server: Served, tmp_path: Path) -> None:
    result = predict(server, "counter", "--stream", "-i", "prompt=one two", "-p", "times=2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["one", "two", "one", "two"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody", "--data", "{}"], 2, "model 'nobody' not found"),
        (["pricer", "--data", '{"sku": ["apple"]}'], 2, "qty"),
        (["pricer", "--data", '{"sku": ["apple"], "qty": ["many"]}'], 2, "qty"),
        (["pricer", "--data", '{"sku": ["kiwi"], "qty": [1]}'], 1, "KeyError"),
        (["pricer", "--data", "{"], 2, "not valid JSON"),
        (["pricer"], 2, "no input; pricer takes"),
        (["pricer", "missing.csv"], 2, "missing.csv"),
        (["pricer", "--version", "9", "--data", "{}"], 2, "no version '9'"),
        (["pricer", "--data", "{}", "--url", "http://127.0.0.1:9"], 3, "127.0.0.1:9"),
        (["pricer", "--data", "{}", "--timeout", "never"], 2, "--timeout"),
    ],
)
def test_errors_and_exit_codes(server: Served, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    result = predict(server, *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_error_in_the_middle_of_a_file_names_its_row(server: Served, tmp_path: Path) -> None:
    rows = ["apple,1"] * 5 + ["kiwi,1"] + ["apple,1"] * 4
    (tmp_path / "rows.csv").write_text("sku,qty\n" + "\n".join(rows) + "\n")
    result = predict(server, "pricer", "rows.csv", "--rows", "2", "-o", "jsonl", cwd=tmp_path)
    assert result.returncode == 1
    assert "in the request that begins with row 4" in result.stderr
