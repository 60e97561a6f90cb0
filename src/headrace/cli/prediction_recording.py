"""``headrace predict --record``: requests and their answers as golden requests, appended to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headrace.client.metadata import ModelMetadata
from headrace.client.wire import Prediction
from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import Tensor
from headrace.protocols import golden_lines, json_elements, untyped
from headrace.protocols.golden_lines import GoldenRequest
from headrace.runtimes import version_files


class Recorder:
    """Appends to a file that is open, unbuffered: what was answered stays when a later request fails."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def add(self, inputs: Sequence[Tensor], parameters: Mapping[str, Parameter], prediction: Prediction) -> None:
        """Raises Conflict for an answer that is not the model's own, StoreFailed when the file cannot be written."""
        if prediction.fallback:
            raise errors.Conflict(
                f"{self._name}: the answer came from the fallback {prediction.fallback!r} and is not recorded; try"
                " again, or name the version with --version"
            )
        self._write(GoldenRequest(tuple(inputs), tuple(prediction.tensors()), dict(parameters)))

    def add_stream(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Parameter],
        events: Sequence[Mapping[str, Any]],
        metadata: ModelMetadata,
    ) -> None:
        """A stream that has ended; ``events`` are its responses as they came.

        Raises Unsupported where they do not tell what the tensors were, StoreFailed like ``add``."""
        if not metadata.inputs or not metadata.outputs:
            raise errors.Unsupported(
                f"{self._name}: streams carry no datatypes, and model {metadata.name!r} does not declare its inputs and"
                ' outputs, as in `def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}`'
            )
        specs = {spec.name: spec for spec in metadata.inputs}
        for tensor in inputs:
            _check_sent(self._name, specs[tensor.name], tensor)
        responses = tuple(tuple(_received(self._name, spec, event) for spec in metadata.outputs) for event in events)
        self._write(GoldenRequest(tuple(inputs), parameters=dict(parameters), responses=responses))

    def _write(self, request: GoldenRequest) -> None:
        left = memoryview(golden_lines.write(request))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise errors.StoreFailed(f"{self._name}: cannot be written: {error.strerror}") from error


_NO_SHAPES = "streams carry values without shapes"


def _check_sent(name: str, spec: TensorSpec, tensor: Tensor) -> None:
    """Raise Unsupported unless the server gave the values the shape that they have here."""
    if untyped.fill(spec, tensor.array.ravel(), batchable=False).shape != tensor.shape:
        raise errors.Unsupported(
            f"{name}: {_NO_SHAPES}, and the server takes another one than {list(tensor.shape)} for input"
            f" {spec.name!r} {list(spec.shape)}; write the lines by hand"
        )


def _received(name: str, spec: TensorSpec, event: Mapping[str, Any]) -> Tensor:
    """An output as the model gave it: events carry a single value bare, others as a flat list."""
    if spec.name not in event:
        raise errors.Unsupported(f"{name}: a response came without output {spec.name!r}, which the model declares")
    value = event[spec.name]
    values = json_elements.to_array(spec.dtype, value if isinstance(value, list) else [value])
    try:
        return Tensor(spec.name, spec.dtype, values.reshape(spec.shape))
    except ValueError:
        raise errors.Unsupported(
            f"{name}: {_NO_SHAPES}, and {values.size} values may have several that fit output {spec.name!r}"
            f" {list(spec.shape)}; write the lines by hand"
        ) from None


@contextmanager
def recording(path: Path) -> Iterator[Recorder]:
    """A recorder while the block runs. A file that did not exist and got nothing is gone afterwards.

    Raises BadSettings when the file cannot be written, InvalidInput when it holds something else already."""
    name = f"--record {path}"
    existed = path.exists()
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise errors.BadSettings(f"{name}: cannot be written: {error.strerror}") from error
    with file:
        try:
            _go_on(path, name, file)
            yield Recorder(file, name)
        finally:
            if not existed and not path.stat().st_size:
                path.unlink()


def _go_on(path: Path, name: str, file: BinaryIO) -> None:
    """Make sure that what stands there are golden requests, and that the next begins on a line of its own."""
    content = version_files.read_golden(path, name)
    if content.strip():
        golden_lines.check(content, name)
    if content and not content.endswith(b"\n"):
        file.write(b"\n")
