"""``headrace predict --record``: requests and their answers as golden requests, appended to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from headrace.client.wire import Prediction
from headrace.core import errors
from headrace.core.requests import Parameter
from headrace.core.tensors import Tensor
from headrace.protocols import golden_lines
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
        request = GoldenRequest(tuple(inputs), tuple(prediction.tensors()), dict(parameters))
        left = memoryview(golden_lines.write(request))
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise errors.StoreFailed(f"{self._name}: cannot be written: {error.strerror}") from error


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
