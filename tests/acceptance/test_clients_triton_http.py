"""tritonclient over HTTP against ``headrace serve`` and against the same app under uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests import models
from tests.acceptance.clients.arrays import ARRAYS, TEXTS, WITHOUT_JSON, objects, same
from tests.acceptance.conftest import Rest
from tests.serving import eventually

pytestmark = pytest.mark.xdist_group("clients")


@pytest.fixture
def client(rest: Rest) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(rest.address, concurrency=4) as made:
        yield made


def tensor(name: str, array: Any, datatype: str, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def cancer(rows: int = 3, binary: bool = True) -> Any:
    return tensor("X", models.inputs("onnx", rows)["X"], "FP32", binary)


def mixed(rows: int = 2) -> list[Any]:
    kinds = {"amount": "FP64", "age": "FP64", "country": "BYTES", "plan": "BYTES"}
    return [tensor(name, array, kinds[name]) for name, array in models.inputs("sklearn-skops", rows).items()]


# --- what there is ---------------------------------------------------------------------------------------------


def test_health_and_readiness(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cancer")
    assert client.is_model_ready("cancer", "1")
    assert client.is_model_ready("org/cancer")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("cancer", "2")


def test_metadata_and_config(client: triton.InferenceServerClient) -> None:
    server = client.get_server_metadata()
    assert server["name"] == "headrace"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    model = client.get_model_metadata("cancer")
    assert model["name"] == "cancer"
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 30]}]
    assert {output["name"]: output["datatype"] for output in model["outputs"]} == {
        "label": "INT64",
        "probabilities": "FP32",
    }
    config = client.get_model_config("cancer")
    assert config["name"] == "cancer"
    assert config["max_batch_size"] == 64
    assert config["input"][0]["name"] == "X"
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def test_repository_index_and_list(client: triton.InferenceServerClient) -> None:
    index = {item["name"]: item for item in client.get_model_repository_index()}
    assert index.keys() == {"echo", "slow", "late", "cancer", "org/cancer", "mixed", "talker"}
    assert index["cancer"]["state"] == "READY"
    assert index["cancer"]["version"] == "1"


def test_statistics_count_requests(client: triton.InferenceServerClient) -> None:
    def count() -> tuple[int, int]:
        (stats,) = client.get_inference_statistics("mixed")["model_stats"]
        return stats["inference_count"], stats["inference_stats"]["success"]["count"]

    rows, requests = count()
    client.infer("mixed", mixed(5))
    client.infer("mixed", mixed(2))
    eventually(lambda: count() == (rows + 7, requests + 2))
    names = {item["name"] for item in client.get_inference_statistics()["model_stats"]}
    assert {"cancer", "mixed", "talker"} <= names


# --- infer -----------------------------------------------------------------------------------------------------


def test_infer_without_outputs(client: triton.InferenceServerClient) -> None:
    result = client.infer("cancer", [cancer()])
    assert result.as_numpy("label").shape == (3,)
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (3, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert result.get_response()["model_name"] == "cancer"
    assert result.get_response()["model_version"] == "1"


def test_infer_with_outputs_mixes_binary_and_json(client: triton.InferenceServerClient) -> None:
    whole = client.infer("cancer", [cancer()])
    outputs = [
        triton.InferRequestedOutput("probabilities", binary_data=True),
        triton.InferRequestedOutput("label", binary_data=False),
    ]
    result = client.infer("cancer", [cancer(binary=False)], outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "label"]
    assert "data" in result.get_output("label")
    assert "data" not in result.get_output("probabilities")
    assert same(result.as_numpy("probabilities"), whole.as_numpy("probabilities"))
    assert result.as_numpy("label").tolist() == whole.as_numpy("label").tolist()
    only = client.infer("cancer", [cancer()], outputs=[triton.InferRequestedOutput("label")])
    assert only.as_numpy("probabilities") is None


@pytest.mark.parametrize(
    ("datatype", "binary"),
    [(name, True) for name in ARRAYS] + [(name, False) for name in ARRAYS if name not in WITHOUT_JSON],
)
def test_every_datatype_comes_back(client: triton.InferenceServerClient, datatype: str, binary: bool) -> None:
    array = ARRAYS[datatype]
    outputs = [triton.InferRequestedOutput("x", binary_data=binary)]
    result = client.infer("echo", [tensor("x", array, datatype, binary)], outputs=outputs)
    assert result.get_output("x")["datatype"] == datatype
    assert same(result.as_numpy("x"), array)


def test_all_datatypes_in_one_request(client: triton.InferenceServerClient) -> None:
    inputs = [
        tensor(name, ARRAYS[name], name, binary=at % 2 == 0 or name in WITHOUT_JSON) for at, name in enumerate(ARRAYS)
    ]
    result = client.infer("echo", inputs)
    for name, array in ARRAYS.items():
        assert same(result.as_numpy(name), array), name


def test_text_input_as_str(client: triton.InferenceServerClient) -> None:
    result = client.infer("echo", [tensor("x", objects(TEXTS), "BYTES")])
    assert [item.decode() for item in result.as_numpy("x")] == TEXTS
    result = client.infer("echo", [tensor("x", objects([b"\xff\x00\xfe"]), "BYTES")])
    assert result.as_numpy("x").tolist() == [b"\xff\x00\xfe"]


def test_empty_tensors(client: triton.InferenceServerClient) -> None:
    for array, datatype in ((np.zeros((0, 3), np.float32), "FP32"), (objects([]), "BYTES")):
        for binary in (True, False):
            result = client.infer("echo", [tensor("x", array, datatype, binary)])
            assert result.get_output("x")["shape"] == list(array.shape)


@pytest.mark.parametrize("given", ["gzip", "deflate", None])
@pytest.mark.parametrize("wanted", ["gzip", "deflate", None])
@pytest.mark.parametrize("binary", [True, False])
def test_compression(client: triton.InferenceServerClient, given: str | None, wanted: str | None, binary: bool) -> None:
    array = np.tile(np.arange(100, dtype=np.int32), (40, 1))
    result = client.infer(
        "echo",
        [tensor("x", array, "INT32", binary)],
        outputs=[triton.InferRequestedOutput("x", binary_data=binary)],
        request_compression_algorithm=given,
        response_compression_algorithm=wanted,
    )
    assert same(result.as_numpy("x"), array)


def test_classification(client: triton.InferenceServerClient) -> None:
    plain = client.infer("cancer", [cancer()]).as_numpy("probabilities")
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1), triton.InferRequestedOutput("label")]
    result = client.infer("cancer", [cancer()], outputs=outputs)
    classes = result.as_numpy("probabilities")
    assert classes.shape == (3, 1)
    for row, probabilities in zip(classes, plain, strict=True):
        value, index = row[0].decode().split(":")[:2]
        assert int(index) == probabilities.argmax()
        assert np.float32(value) == probabilities.max()
    both = client.infer(
        "cancer", [cancer()], outputs=[triton.InferRequestedOutput("probabilities", class_count=9, binary_data=False)]
    )
    assert both.as_numpy("probabilities").shape == (3, 2)


@pytest.mark.parametrize("identity", ["a1", "ünïcode 🦀", "x" * 200])
def test_request_id_is_echoed(client: triton.InferenceServerClient, identity: str) -> None:
    assert client.infer("cancer", [cancer()], request_id=identity).get_response()["id"] == identity


def test_request_parameters_are_accepted(client: triton.InferenceServerClient) -> None:
    result = client.infer("cancer", [cancer()], priority=1, timeout=5_000_000, parameters={"a": "b", "c": 1, "d": True})
    assert result.as_numpy("label").shape == (3,)


def test_model_name_with_slash_and_version(client: triton.InferenceServerClient) -> None:
    result = client.infer("org/cancer", [cancer()], model_version="1")
    assert result.get_response()["model_name"] == "org/cancer"
    assert client.get_model_metadata("org/cancer")["name"] == "org/cancer"
    assert client.get_model_config("org/cancer", "1")["name"] == "org/cancer"


def test_async_infer(client: triton.InferenceServerClient) -> None:
    waiting = [client.async_infer("echo", [tensor("x", np.full((1, 4), at), "INT64")]) for at in range(16)]
    assert [int(job.get_result().as_numpy("x")[0, 0]) for job in waiting] == list(range(16))


# --- errors ----------------------------------------------------------------------------------------------------


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def test_unknown_models(client: triton.InferenceServerClient) -> None:
    status, message = refusal(client.infer, "nobody", [cancer()])
    assert status == "404"
    assert "nobody" in message
    status, message = refusal(client.get_model_metadata, "no body")
    assert status == "404"
    assert "'no body'" in message
    status, message = refusal(client.infer, "cancer", [cancer()], model_version="7")
    assert status == "404"
    assert "7" in message
    assert "cancer" in message
    status, message = refusal(client.get_model_metadata, "org/nobody")
    assert status == "404"
    assert "org/nobody" in message


def test_what_is_not_served(client: triton.InferenceServerClient) -> None:
    status, message = refusal(client.get_trace_settings)
    assert status == "404"
    assert "/v2/trace/setting" in message
    status, message = refusal(client.load_model, "cancer")
    assert status == "404"
    assert "/v2/repository/models/cancer/load" in message
    status, message = refusal(client.infer, "talker", [tensor("prompt", objects([b"a"]), "BYTES")])
    assert status == "501"
    assert "generate_stream" in message


def test_inputs_that_do_not_fit(client: triton.InferenceServerClient) -> None:
    cases = [
        ([tensor("Y", np.zeros((1, 30), np.float32), "FP32")], ["missing input 'X'", "'Y'"]),
        ([tensor("X", np.zeros((1, 29), np.float32), "FP32")], ["'X'", "[-1, 30]", "[1, 29]"]),
        ([tensor("X", np.zeros((1, 30), np.float64), "FP64")], ["'X'", "FP32", "FP64"]),
        ([], ["missing input 'X'"]),
        ([cancer(), cancer()], ["'X'", "more than once"]),
    ]
    for inputs, wanted in cases:
        status, message = refusal(client.infer, "cancer", inputs)
        assert status == "400"
        for part in wanted:
            assert part in message
    status, message = refusal(client.infer, "cancer", [cancer()], outputs=[triton.InferRequestedOutput("score")])
    assert status == "400"
    assert "'score'" in message
    assert "'label'" in message


def test_answers_that_json_cannot_hold(client: triton.InferenceServerClient) -> None:
    as_json = [triton.InferRequestedOutput("x", binary_data=False)]
    for array, datatype in (
        (np.array([1.0], np.float16), "FP16"),
        (np.array([np.nan], np.float32), "FP32"),
        (objects([b"\xff"]), "BYTES"),
    ):
        status, message = refusal(client.infer, "echo", [tensor("x", array, datatype)], outputs=as_json)
        assert status == "400"
        assert "binary" in message
        assert same(client.infer("echo", [tensor("x", array, datatype)]).as_numpy("x"), array)


def test_body_beyond_the_limit(client: triton.InferenceServerClient) -> None:
    status, message = refusal(client.infer, "echo", [tensor("x", np.zeros((6, 1 << 20), np.int8), "INT8")])
    assert status == "413"
    assert str(4 << 20) in message
    assert client.is_server_live()
    array = np.zeros((3, 1 << 20), np.int8)
    assert same(client.infer("echo", [tensor("x", array, "INT8")]).as_numpy("x"), array)


def test_a_failing_model(client: triton.InferenceServerClient) -> None:
    status, message = refusal(client.infer, "slow", [tensor("x", np.array([[13]]), "INT64")])
    assert status == "500"
    assert "holds 13" in message


def test_method_not_allowed(client: triton.InferenceServerClient, rest: Rest) -> None:
    answer = client._post("v2/models/cancer", "{}", {}, None)
    assert answer.status_code == 405
    assert "GET" in answer.get("allow")
    assert json.loads(answer.read())["error"]
    answer = client._get("v2/models/cancer/infer", {}, None)
    assert answer.status_code == 405
    assert answer.get("allow") == "POST"
    assert answer.get("content-type") == "application/json"
    assert "POST" in json.loads(answer.read())["error"]


# --- asyncio ---------------------------------------------------------------------------------------------------


def test_asyncio_client(rest: Rest) -> None:
    async def main() -> None:
        async with triton_aio.InferenceServerClient(rest.address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("org/cancer")
            assert (await client.get_server_metadata())["name"] == "headrace"
            assert (await client.get_model_metadata("cancer"))["inputs"][0]["name"] == "X"
            assert (await client.get_model_config("cancer"))["name"] == "cancer"
            assert (await client.get_inference_statistics("cancer"))["model_stats"]
            results = await asyncio.gather(
                *(client.infer("echo", [tensor("x", array, name)]) for name, array in ARRAYS.items())
            )
            for result, (name, array) in zip(results, ARRAYS.items(), strict=True):
                assert same(result.as_numpy("x"), array), name
            array = np.tile(np.arange(100, dtype=np.int32), (40, 1))
            for given in ("gzip", "deflate"):
                result = await client.infer(
                    "echo",
                    [tensor("x", array, "INT32")],
                    request_compression_algorithm=given,
                    response_compression_algorithm=given,
                )
                assert same(result.as_numpy("x"), array)
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [cancer()])
            with pytest.raises(InferenceServerException, match="expected shape"):
                await client.infer("cancer", [tensor("X", np.zeros((1, 2), np.float32), "FP32")])

    asyncio.run(main())
