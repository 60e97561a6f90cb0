"""The port between a worker and a model framework.

A runtime module has ``load(artifact, options) -> Runtime``. It may import its framework at module import, because
``runtimes/table.py`` imports the module only inside the worker that needs it. It knows nothing of sockets,
batches of requests or protocols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots
from headrace.core.padding import PaddingRules
from headrace.core.requests import Parameter
from headrace.core.tensors import Array

Arrays = dict[str, Array]


class LoadOptions(msgspec.Struct, frozen=True):
    """threads: framework threads for this replica (≥ 1); batch_limit: rows of the largest batch that will come;
    source: a copy of the Python file, as it was when it was inspected; scratch: a folder for what a runtime must have
    on disk, removed by whoever started the worker (None: a temporary one)."""

    threads: int = 1
    batch_limit: int = 64
    options: dict[str, str] = {}
    source: str | None = None
    scratch: str | None = None


class Runtime(Protocol):
    """A loaded model. A subclass answers every request once, has no example and nothing to release, unless it says so.

    Calls come from one thread at a time when ``slots`` is BATCH, from ``slots.count`` threads when it is CONCURRENT.
    ``inputs`` are read-only views that die with the call."""

    platform: str
    signature: Signature
    slots: Slots
    metadata: dict[str, str]

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        """Outputs by name. For a batchable signature dimension 0 of every output equals that of the inputs.
        Any exception is the model's error and reaches the caller by its message."""
        ...

    def stream(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Iterator[Arrays]:
        """Chunks of one request; only called when ``signature.streaming``. Closing the iterator cancels."""
        raise errors.Bug(f"a model of platform {self.platform} does not stream")

    def samples(self) -> Arrays | None:
        """One row of example input for warm-up, or None to let the worker make zeros from the signature."""
        return None

    def padding(self) -> PaddingRules:
        """What the model itself declares about padding."""
        return PaddingRules()

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names that the artifact has for all dimensions of inputs and outputs, the rows included; "" for one without.
        Tensors may be left out."""
        return {}

    def close(self) -> None:
        """Release what was loaded. Called once, after the last call has returned."""
        return


class RuntimeModule(Protocol):
    """What ``runtimes/table.py`` expects of a runtime's module."""

    def load(self, artifact: Artifact, options: LoadOptions) -> Runtime: ...
