"""TorchServe archives: the handler in a ``.mar`` answers batches as it does under TorchServe.

Input ``data`` holds one request body per row, as BYTES. The handler gets a list with ``{"body": …}`` for each row, and
returns a list of the same length; output ``output`` holds its answers as BYTES: bytes as they are, text in UTF-8,
anything else as JSON. Like TorchServe's frontend, ``content_type`` decides what the handler finds in ``body``: the
parsed document for ``application/json``, text for ``text/…``, otherwise a ``bytearray``. It is an option of the
deployment and a parameter of requests. The option ``field`` is the key in place of ``body``, as in a form.

Not as under TorchServe: the working directory is not the archive's (``system_properties["model_dir"]`` is), there is no
GPU number, requests bring no other headers, and metrics that the handler adds are not collected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots, TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.runtimes import digest, options, scratch, torchserve_archive, torchserve_handler, trust, zip_file
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime
from headrace.runtimes.torchserve_archive import Archive
from headrace.runtimes.torchserve_context import Context

INPUT, OUTPUT = "data", "output"
CONTENT_TYPE, FIELD = "content_type", "field"
_JSON = "application/json"
_SHOWN = 500

_modules: dict[str, str] = {}
"""Names that handlers of this process import their own files by, and the archive that has each."""


def load(artifact: Artifact, load_options: LoadOptions) -> Runtime:
    trust.require(artifact, load_options.options)
    options.check("torchserve", load_options.options, (CONTENT_TYPE, FIELD))
    resources = ExitStack()
    try:
        folder = resources.enter_context(scratch.folder(load_options.scratch))
        archive = _unpacked(artifact, folder)
        _claim_modules(archive, artifact.digest)
        config = _config(folder, archive.config_file)
        name = archive.model_name
        context = Context(name, str(folder), archive.manifest, load_options.batch_limit, config)
        handle = torchserve_handler.start(archive, folder, artifact.digest, context)
    except BaseException:
        resources.close()
        raise
    return TorchServeRuntime(handle, context, artifact.details, load_options.options, resources)


class TorchServeRuntime(Runtime):
    """Calls a handler with batches. ``resources`` holds its files until ``close``."""

    def __init__(
        self,
        handle: torchserve_handler.Handle,
        context: Context,
        details: Mapping[str, str],
        given: Mapping[str, str],
        resources: ExitStack,
    ) -> None:
        self.platform = "torchserve"
        self.signature = Signature(
            inputs=(TensorSpec(INPUT, DType.BYTES, (-1,)),),
            outputs=(TensorSpec(OUTPUT, DType.BYTES, (-1,)),),
            parameters=(CONTENT_TYPE,),
        )
        self.slots = Slots()
        self.metadata = dict(details)
        self._handle = handle
        self._context = context
        self._content_type = given.get(CONTENT_TYPE, "")
        self._field = given.get(FIELD, "body")
        self._resources = resources

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        content_type = str(parameters.get(CONTENT_TYPE, self._content_type))
        requests = [
            {self._field: _body(item, content_type, index)} for index, item in enumerate(inputs[INPUT].tolist())
        ]
        headers = {self._field: {"content-type": content_type}, "content-type": content_type} if content_type else {}
        self._context.begin([dict(headers) for _ in requests])
        answers = self._handle(requests, self._context)
        if not isinstance(answers, list) or len(answers) != len(requests):
            got = f"{len(answers)} answers" if isinstance(answers, list) else f"a {type(answers).__name__}"
            raise errors.BadModelOutput(
                f"the handler returned {got} for {len(requests)} requests; it must return a list with one for each"
            )
        output = np.empty(len(answers), dtype=object)
        output[:] = [_answer(answer, index) for index, answer in enumerate(answers)]
        self._refuse_bad_status(output)
        return {OUTPUT: output}

    def _refuse_bad_status(self, output: Array) -> None:
        """A handler may answer single requests with an error status: the caller gets an error, not an output."""
        for index, answer in enumerate(output):
            code, phrase = self._context.get_response_status(index)
            if code >= 400:
                kind = errors.InvalidInput if code < 500 else errors.ModelRaised
                said = answer[:_SHOWN].decode("utf-8", "replace")
                raise kind(f"the handler answered with status {code}{f' {phrase}' if phrase else ''}: {said}")

    def close(self) -> None:
        self._resources.close()


def _body(item: bytes, content_type: str, index: int) -> Any:
    """A request body as TorchServe's frontend hands it on."""
    try:
        if content_type.partition(";")[0].strip() == _JSON:
            return json.loads(item)
        return item.decode() if content_type.startswith("text") else bytearray(item)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInput(f"row {index} of {INPUT!r} is no {content_type}: {error}") from error


def _answer(answer: Any, index: int) -> bytes:
    if isinstance(answer, bytes | bytearray):
        return bytes(answer)
    if isinstance(answer, str):
        return answer.encode()
    try:
        return json.dumps(answer).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.BadModelOutput(
            f"answer {index} of the handler is a {type(answer).__name__} that cannot be written as JSON ({error});"
            " return bytes, text, or lists and dicts of numbers and texts"
        ) from error


# --- loading ------------------------------------------------------------------------------------------------------


def _unpacked(artifact: Artifact, folder: Path) -> Archive:
    """Unpack the archive that was inspected, and no other."""
    path = Path(artifact.path)
    with path.open("rb") as file:
        now = digest.of_open_file(file)
        if now != artifact.digest:
            raise errors.UntrustedArtifact(f"{path} changed after it was inspected: it is {now} now")
        with zip_file.opened(file) as archive:
            described = torchserve_archive.read(archive)
            torchserve_archive.unpack(archive, folder)
    return described


def _claim_modules(archive: Archive, digest: str) -> None:
    """Make sure that no other archive in this process has files that are imported by the same names: the second would
    silently run code of the first."""
    own = {name.partition("/")[0].removesuffix(".py") for name in archive.extra_files if name.endswith(".py")}
    if archive.model_file is not None:
        own.add(archive.model_file.removesuffix(".py"))
    taken = sorted(name for name in own if _modules.get(name, digest) != digest)
    if taken:
        raise errors.LoadFailed(
            f"another TorchServe archive in this process has a module {taken[0]!r} too; keep them apart with"
            " isolation: process"
        )
    _modules.update(dict.fromkeys(own, digest))


def _config(folder: Path, name: str | None) -> dict[str, Any]:
    """``model-config.yaml`` as TorchServe gives it to handlers; empty when there is none."""
    if name is None:
        return {}
    import yaml

    try:
        document = yaml.safe_load((folder / name).read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise errors.LoadFailed(f"{name} in the archive is not valid YAML: {error}") from error
    return document if isinstance(document, dict) else {}
