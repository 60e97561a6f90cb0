"""Reading JSON, JSON lines, CSV and pairs in chunks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.cli.prediction_inputs import Chunk, open_source, parse_pairs, read_chunks, value_chunks
from headrace.client import ModelMetadata
from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import DType


def metadata(*specs: TensorSpec) -> ModelMetadata:
    return ModelMetadata("m", ("1",), "x", specs, ())


TABLE = metadata(
    TensorSpec("amount", DType.FP64, (-1,)),
    TensorSpec("zip", DType.BYTES, (-1,)),
    TensorSpec("age", DType.INT64, (-1,)),
    TensorSpec("new", DType.BOOL, (-1,)),
)
MATRIX = metadata(TensorSpec("X", DType.FP32, (-1, 2)))
FIXED = metadata(TensorSpec("X", DType.FP32, (2, 2)))


def read(path: Path, of: ModelMetadata, rows: int = 1000, forced: str | None = None) -> list[Chunk]:
    with open_source(str(path), io.BytesIO(), forced) as source:
        return list(read_chunks(source, of, rows))


def refusal(path: Path, of: ModelMetadata = TABLE) -> str:
    with pytest.raises(errors.CallerError) as caught:
        read(path, of)
    return caught.value.message.replace(str(path), "FILE")


CSV = "amount,zip,age,new\n1.5,02134,3,true\n,x,4,0\n\n2,y,5,No\n"


def test_csv_columns_get_the_types_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    first, second = read(path, TABLE, rows=2)
    assert first.inputs["zip"] == ["02134", "x"]  # a number as text stays as it is written
    assert first.inputs["age"] == [3, 4]
    assert first.inputs["new"] == [True, False]
    assert first.inputs["amount"][0] == 1.5
    assert np.isnan(first.inputs["amount"][1])
    assert second == Chunk({"amount": [2.0], "zip": ["y"], "age": [5], "new": [False]}, first=2)


def test_csv_quotes_and_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffamount,zip\n1,"a, ""b""\nc"\n'.encode())
    assert read(path, TABLE) == [Chunk({"amount": [1.0], "zip": ['a, "b"\nc']})]


@pytest.mark.parametrize("header", ["a,b\n", ""])
def test_csv_of_a_matrix_model_with_and_without_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}1,2\n3,4\n")
    assert read(path, MATRIX) == [Chunk([[1.0, 2.0], [3.0, 4.0]])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amount\nx\n", "FILE line 2, column 'amount': expected FP64, got 'x'"),
        ("amount,age\n1,\n", "FILE line 2, column 'age': expected INT64, got ''"),
        ("age\n1\n2.5\n", "FILE line 3, column 'age': expected INT64, got '2.5'"),
        ("new\nperhaps\n", "FILE line 2, column 'new': expected BOOL, got 'perhaps'"),
        ("amount,age\n1\n", "FILE line 2: 1 columns, the first line has 2"),
        ("", "FILE: the file is empty"),
        ('amount\n"x\n', "FILE: not valid CSV: unexpected end of data"),
    ],
)
def test_csv_errors_name_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert refusal(path) == message


def test_json_lines_come_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"amount": 1}\n\n{"amount": 2}\n{"amount": 3}\n')
    assert read(path, TABLE, rows=2) == [Chunk([{"amount": 1}, {"amount": 2}]), Chunk([{"amount": 3}], first=2)]
    path.write_text('{"amount": 1}\n{"amount"\n')
    assert refusal(path).startswith("FILE line 2: not valid JSON")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.csv") == "FILE: cannot be read: No such file or directory"
    assert "the format is not known by its name; pass --format" in refusal(tmp_path / "rows.dat")
    (tmp_path / "latin.csv").write_bytes(b"amount\n\xff\n")
    assert refusal(tmp_path / "latin.csv").startswith("FILE: not UTF-8 text")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'[{"a": 1}]', "json"),
        (b'{"a": [1],\n"b": [2]}', "json"),
        (b'{"a": 1}\n{"a": 2}\n', "jsonl"),
        (b"[1, 2]\n[3, 4]\n", "jsonl"),
        (b"[[1,\n2],\n[3, 4]]", "json"),
        (b"a,b\n1,2\n", "csv"),
        (b"\xef\xbb\xbf{}", "json"),
        (b"", "csv"),
    ],
)
def test_the_format_of_stdin_is_found(text: bytes, kind: str) -> None:
    with open_source("-", io.BytesIO(text), None) as source:
        assert source.format == kind
        assert source.text.read() == text.decode("utf-8-sig")
    with open_source("-", io.BytesIO(text), "csv") as source:
        assert source.format == "csv"


@pytest.mark.parametrize(
    ("value", "of", "chunks"),
    [
        ({"amount": [1, 2, 3]}, TABLE, [Chunk({"amount": [1, 2]}), Chunk({"amount": [3]}, 2)]),
        ({"amount": [1, 2]}, TABLE, [Chunk({"amount": [1, 2]})]),
        ({"amount": 1}, TABLE, [Chunk({"amount": 1})]),
        ({"amount": [1, 2, 3], "age": [1]}, TABLE, [Chunk({"amount": [1, 2, 3], "age": [1]})]),
        ({"instances": [{"amount": 1}]}, TABLE, [Chunk([{"amount": 1}])]),
        ({"inputs": {"amount": [1]}}, TABLE, [Chunk({"amount": [1]})]),
        ([[1, 2], [3, 4], [5, 6]], MATRIX, [Chunk([[1, 2], [3, 4]]), Chunk([[5, 6]], 2)]),
        ([1, 2], MATRIX, [Chunk([1, 2])]),
        ([[1, 2], [3, 4], [5, 6]], FIXED, [Chunk([[1, 2], [3, 4], [5, 6]])]),
        ([], MATRIX, [Chunk([])]),
        (5, MATRIX, [Chunk(5)]),
    ],
)
def test_values_are_cut_into_requests_where_rows_are_known(value: Any, of: ModelMetadata, chunks: list[Chunk]) -> None:
    assert list(value_chunks(value, of, 2)) == chunks


def test_an_input_called_instances_is_an_input() -> None:
    of = metadata(TensorSpec("instances", DType.FP32, (-1,)))
    assert list(value_chunks({"instances": [1]}, of, 9)) == [Chunk({"instances": [1]})]


def test_pairs(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.float32).reshape(2, 2)
    np.save(tmp_path / "x.npy", array)
    values = parse_pairs(
        [
            "amount=12.5",
            "zip=02134",
            "age=[1, 2]",
            "new=true",
            f"X=@{tmp_path / 'x.npy'}",
            'other={"a": "b=c"}',
            "t=a b",
        ],
        TABLE,
    )
    np.testing.assert_array_equal(values.pop("X"), array)
    assert values == {
        "amount": 12.5,
        "zip": "02134",
        "age": [1, 2],
        "new": True,
        "other": {"a": "b=c"},
        "t": "a b",
    }


@pytest.mark.parametrize("pair", ["amount", "=1", "x=@absent.npy", f"x=@{__file__}"])
def test_wrong_pairs(pair: str) -> None:
    with pytest.raises(errors.CallerError, match="--input: "):
        parse_pairs([pair], TABLE)
