"""kserve's own codecs in a process of their own: it and tritonclient cannot live in one.

Reads one JSON object per line on stdin and answers each with one line. Bytes travel as base64. Run by
``test_kserve_client.py``.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse


def encode(job: dict[str, Any]) -> dict[str, Any]:
    inputs = []
    for item in job["inputs"]:
        array = array_of(item)
        made = InferInput(item["name"], list(array.shape), item["datatype"])
        made.set_data_from_numpy(array, binary_data=item["binary"])
        inputs.append(made)
    request = InferRequest("m", inputs, request_id=job["id"], parameters=job.get("parameters"))
    if job["over"] == "grpc":
        return {"body": base64.b64encode(request.to_grpc().SerializeToString()).decode(), "size": None}
    body, size = request.to_rest()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"body": base64.b64encode(raw).decode(), "size": size}


def array_of(item: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(item["data"])
    if item["datatype"] == "BYTES":
        array = np.empty(len(item["items"]), object)
        array[:] = [base64.b64decode(part) for part in item["items"]]
        return array.reshape(item["shape"])
    return np.frombuffer(raw, item["numpy"]).reshape(item["shape"])


def decode(job: dict[str, Any]) -> dict[str, Any]:
    raw = base64.b64decode(job["body"])
    if job["over"] == "grpc":
        response = InferResponse.from_grpc(ModelInferResponse.FromString(raw))
    else:
        response = InferResponse.from_bytes(raw, job["size"] or len(raw))
    return {"id": response.id, "model_name": response.model_name, "outputs": [show(o) for o in response.outputs]}


def show(output: InferOutput) -> dict[str, Any]:
    array = output.as_numpy()
    if array.dtype == object:
        data: Any = [base64.b64encode(v if isinstance(v, bytes) else v.encode()).decode() for v in array.ravel()]
    else:
        data = base64.b64encode(array.tobytes()).decode()
    return {"name": output.name, "datatype": output.datatype, "shape": list(array.shape), "data": data}


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        answer = encode(job) if job["do"] == "encode" else decode(job)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
