"""kserve's clients with a key, in a process of their own (see ``kserve_client.py``).

``python kserve_key.py ADDRESS KEY`` prints what they got with the key and without it, as one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request() -> InferRequest:
    made = InferInput("x", [2], "FP32")
    made.set_data_from_numpy(np.array([1, 2], np.float32), binary_data=False)
    return InferRequest("echo", [made])


async def main(address: str, key: str) -> dict[str, Any]:
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {"ready": await rest.is_server_ready(f"http://{address}")}
    answered = await rest.infer(
        f"http://{address}", request(), model_name="echo", headers={"Authorization": f"Bearer {key}"}
    )
    found["rest"] = answered.outputs[0].as_numpy().tolist()
    try:
        await rest.infer(f"http://{address}", request(), model_name="echo")
    except httpx.HTTPStatusError as error:
        found["rest without"] = error.response.status_code
    async with InferenceGRPCClient(address) as client:
        answered = await client.infer(request(), headers=[("x-api-key", key)])
        found["grpc"] = answered.outputs[0].as_numpy().tolist()
        try:
            await client.infer(request())
        except grpc.RpcError as error:
            found["grpc without"] = error.code().name  # type: ignore[attr-defined]
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
