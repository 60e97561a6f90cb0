"""One request in every form a client may send it, all from one event loop, so that they can be under way together.

Each form takes and gives arrays by name; what a form cannot express (FP16 in JSON, no rows in V1) is not among
``forms_for`` of a request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import grpc
import httpx
import ml_dtypes
import numpy as np
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.grpc import InferInput as GrpcInput
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.http import InferInput as HttpInput
from tritonclient.utils import InferenceServerException

from tests.acceptance.clients.arrays import Array

T = TypeVar("T")
Arrays = dict[str, Array]

FORMS = ("oip-binary", "oip-json", "grpc-raw", "grpc-typed", "v1-rows", "v1-columns")

_TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
    "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "BF16": np.uint16,
    "FP32": np.float32, "FP64": np.float64, "BYTES": object,
}  # fmt: skip
_DATATYPES = {np.dtype(kind): name for name, kind in _NUMPY.items() if name != "BF16"}


class Failed(Exception):
    """The server answered with an error."""


class Specs:
    """Datatypes of a model's inputs and outputs, as its metadata tells them. Untyped models have none."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.inputs = {item["name"]: item["datatype"] for item in metadata["inputs"]}
        self.outputs = {item["name"]: item["datatype"] for item in metadata["outputs"]}

    def datatype(self, name: str, array: Array) -> str:
        return self.inputs.get(name) or _DATATYPES[array.dtype]

    def forms_for(self, inputs: Arrays, rows: int) -> list[str]:
        kinds = {self.datatype(name, array) for name, array in inputs.items()} | set(self.outputs.values())
        binary_only = bool(kinds & {"FP16", "BF16"})
        forms = ["oip-binary", "grpc-raw"] if binary_only else list(FORMS[:4])
        if self.inputs and rows and not binary_only:
            forms += FORMS[4:]
        return forms


class Callers:
    """Every client, on a loop in a thread of its own."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callers", daemon=True)
        self._thread.start()
        self.run(self._open(address))

    async def _open(self, address: str) -> None:
        self._http = triton_http.InferenceServerClient(address, conn_limit=64)
        self._grpc = triton_grpc.InferenceServerClient(address)
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        limits = httpx.Limits(max_connections=64)
        self._plain = httpx.AsyncClient(base_url=f"http://{address}", limits=limits, timeout=60)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(110)

    def close(self) -> None:
        async def close() -> None:
            await self._http.close()
            await self._grpc.close()
            await self._channel.close()
            await self._plain.aclose()

        self.run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def specs(self, model: str) -> Specs:
        async def ask() -> Specs:
            return Specs((await self._plain.get(f"/v2/models/{model}")).raise_for_status().json())

        return self.run(ask())

    def together(self, calls: list[Coroutine[Any, Any, T]]) -> list[T | Failed]:
        """The answers of calls that are all under way at once."""

        async def all_of_them() -> list[T | Failed]:
            return await asyncio.gather(*map(_caught, calls))

        return self.run(all_of_them())

    async def ask(
        self, form: str, model: str, specs: Specs, inputs: Arrays, parameters: dict[str, Any] | None = None
    ) -> Arrays:
        """One request. Raises Failed."""
        match form:
            case "oip-binary":
                return await self._binary(model, specs, inputs, parameters)
            case "oip-json":
                return await self._json(model, specs, inputs, parameters)
            case "grpc-raw":
                return await self._raw(model, specs, inputs, parameters)
            case "grpc-typed":
                return await self._typed(model, specs, inputs, parameters)
            case "v1-rows":
                return await self._rows(model, specs, inputs)
            case "v1-columns":
                return await self._columns(model, specs, inputs)
        raise KeyError(form)

    async def _binary(self, model: str, specs: Specs, inputs: Arrays, parameters: dict[str, Any] | None) -> Arrays:
        given = [_triton_input(HttpInput, name, array, specs) for name, array in inputs.items()]
        try:
            result = await self._http.infer(model, given, parameters=parameters)
        except InferenceServerException as error:
            raise Failed(error.message()) from None
        return {item["name"]: _narrow(result.as_numpy(item["name"])) for item in result.get_response()["outputs"]}

    async def _raw(self, model: str, specs: Specs, inputs: Arrays, parameters: dict[str, Any] | None) -> Arrays:
        given = [_triton_input(GrpcInput, name, array, specs) for name, array in inputs.items()]
        try:
            result = await self._grpc.infer(model, given, parameters=parameters)
        except InferenceServerException as error:
            raise Failed(error.message()) from None
        return {item.name: _narrow(result.as_numpy(item.name)) for item in result.get_response().outputs}

    async def _json(self, model: str, specs: Specs, inputs: Arrays, parameters: dict[str, Any] | None) -> Arrays:
        tensors = [
            {"name": n, "shape": list(a.shape), "datatype": specs.datatype(n, a), "data": _listed(a.ravel())}
            for n, a in inputs.items()
        ]
        answer = await self._post(f"/v2/models/{model}/infer", {"inputs": tensors, "parameters": parameters or {}})
        return {
            item["name"]: _array(item["data"], item["datatype"]).reshape(item["shape"]) for item in answer["outputs"]
        }

    async def _typed(self, model: str, specs: Specs, inputs: Arrays, parameters: dict[str, Any] | None) -> Arrays:
        request = service_pb2.ModelInferRequest(model_name=model)
        for name, array in inputs.items():
            datatype = specs.datatype(name, array)
            item = request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            getattr(item.contents, _TYPED[datatype]).extend(array.ravel().tolist())
        for name, value in (parameters or {}).items():
            request.parameters[name].double_param = value
        try:
            response = await self._stub.ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            raise Failed(error.details()) from None
        return {
            item.name: _array(list(getattr(item.contents, _TYPED[item.datatype])), item.datatype).reshape(item.shape)
            for item in response.outputs
        }

    async def _rows(self, model: str, specs: Specs, inputs: Arrays) -> Arrays:
        columns = {name: _listed(array) for name, array in inputs.items()}
        rows: Any = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if len(columns) == 1:
            rows = next(iter(columns.values()))
        found = (await self._post(f"/v1/models/{model}:predict", {"instances": rows}))["predictions"]
        if len(specs.outputs) == 1:
            return {name: _array(found, kind) for name, kind in specs.outputs.items()}
        return {name: _array([row[name] for row in found], kind) for name, kind in specs.outputs.items()}

    async def _columns(self, model: str, specs: Specs, inputs: Arrays) -> Arrays:
        columns: Any = {name: _listed(array) for name, array in inputs.items()}
        found = (await self._post(f"/v1/models/{model}:predict", {"inputs": columns}))["outputs"]
        if len(specs.outputs) == 1:
            return {name: _array(found, kind) for name, kind in specs.outputs.items()}
        return {name: _array(found[name], kind) for name, kind in specs.outputs.items()}

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._plain.post(path, json=body)
        found: dict[str, Any] = answer.json()
        if answer.status_code != 200:
            raise Failed(found["error"])
        return found


async def _caught(call: Coroutine[Any, Any, T]) -> T | Failed:
    try:
        return await call
    except Failed as error:
        return error


def _triton_input(kind: Any, name: str, array: Array, specs: Specs) -> Any:
    datatype = specs.datatype(name, array)
    if datatype == "BF16":
        array = array.view(ml_dtypes.bfloat16)
    made = kind(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def _narrow(array: Array) -> Array:
    """BF16 as bit patterns, as a runtime gives it."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _listed(array: Array) -> Any:
    if array.dtype != object:
        return array.tolist()
    flat = [item.decode() for item in array.ravel()]
    out = np.empty(len(flat), object)
    out[:] = flat
    return out.reshape(array.shape).tolist()


def _array(values: list[Any], datatype: str) -> Array:
    if datatype != "BYTES":
        return np.array(values, _NUMPY[datatype])
    flat = np.array(values, object)
    out = np.empty(flat.size, object)
    out[:] = [item.encode() if isinstance(item, str) else item for item in flat.ravel()]
    return out.reshape(flat.shape)
