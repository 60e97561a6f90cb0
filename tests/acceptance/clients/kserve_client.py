"""kserve's clients against a running server, in a process of its own: kserve and tritonclient register the same
protobuf symbols and cannot live in one.

``python kserve_client.py rest|grpc ADDRESS`` prints one JSON object of what the clients got; ``test_clients_kserve.py``
judges it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig

TEXTS = ["küche", "中国"]


def tensor(name: str, array: Any, datatype: str, binary: bool) -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def cancer(model: str = "cancer", binary: bool = True, **fields: Any) -> InferRequest:
    array = np.arange(60, dtype=np.float32).reshape(2, 30)
    return InferRequest(model, [tensor("X", array, "FP32", binary)], **fields)


def several(binary: bool) -> InferRequest:
    strings = np.empty(2, object)
    strings[:] = [text.encode() for text in TEXTS]
    arrays = {
        "FP32": np.array([[0.5], [-1.25]], np.float32),
        "FP64": np.array([0.1, 1e300]),
        "INT8": np.array([-128, 127], np.int8),
        "INT64": np.array([[-(1 << 53)], [5]]),
        "UINT16": np.array([0, 65535], np.uint16),
        "BOOL": np.array([True, False]),
        "BYTES": strings,
    }
    return InferRequest("echo", [tensor(name, array, name, binary) for name, array in arrays.items()], request_id="a1")


def shown(output: InferOutput) -> dict[str, Any]:
    array = output.as_numpy()
    values = array.ravel().tolist()
    return {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(array.shape),
        "values": [value.decode() if isinstance(value, bytes) else value for value in values],
    }


def answer(response: Any) -> dict[str, Any]:
    return {
        "id": response.id,
        "model_name": response.model_name,
        "outputs": [shown(output) for output in response.outputs],
    }


async def failure(call: Awaitable[Any]) -> str:
    try:
        await call
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


async def rest(address: str) -> dict[str, Any]:
    url = f"http://{address}"
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    row = {"amount": 12.5, "age": 40, "country": "中国", "plan": "pro"}
    return {
        "v1 live": await v1.is_server_live(url),
        "v2 live": await v2.is_server_live(url),
        "v2 ready": await v2.is_server_ready(url),
        "v1 model": await v1.is_model_ready(url, "cancer"),
        "v2 model": await v2.is_model_ready(url, "cancer"),
        "v2 no model": await v2.is_model_ready(url, "nobody"),
        "v1 instances": await v1.infer(url, {"instances": [[0.5] * 30, [1.5] * 30]}, model_name="cancer"),
        "v1 inputs": await v1.infer(url, {"inputs": [[0.5] * 30]}, model_name="cancer"),
        "v1 columns": await v1.infer(url, {"instances": [row, row]}, model_name="mixed"),
        "v1 error": await failure(v1.infer(url, {"instances": [{"amount": 1}]}, model_name="mixed")),
        "v1 unknown": await failure(v1.infer(url, {"instances": [1]}, model_name="nobody")),
        "v2 binary": answer(await v2.infer(url, several(True), model_name="echo")),
        "v2 json": answer(await v2.infer(url, several(False), model_name="echo")),
        "v2 cancer": answer(await v2.infer(url, cancer(request_id="c7"), model_name="cancer")),
        "v2 slash": answer(await v2.infer(url, cancer("org/cancer"), model_name="org/cancer")),
        "v2 binary outputs": answer(
            await v2.infer(url, cancer(parameters={"binary_data_output": True}), model_name="cancer")
        ),
        "v2 error": await failure(v2.infer(url, several(False), model_name="cancer")),
        "v2 unknown": await failure(v2.infer(url, several(False), model_name="nobody")),
    }


async def grpc(address: str) -> dict[str, Any]:
    client = InferenceGRPCClient(address)
    found = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model": await client.is_model_ready("cancer"),
        "raw": answer(await client.infer(several(True))),
        "typed": answer(await client.infer(several(False))),
        "cancer": answer(await client.infer(cancer(binary=False, request_id="c7"), headers=(("x-tenant", "a"),))),
        "error": await failure(client.infer(InferRequest("cancer", several(False).inputs))),
        "unknown": await failure(client.infer(cancer("nobody"))),
        "late": await failure(client.infer(InferRequest("slow", several(False).inputs), timeout=0.1)),
    }
    await client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"rest": rest, "grpc": grpc}[sys.argv[1]](sys.argv[2]))))
