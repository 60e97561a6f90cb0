import msgspec
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from benchmarks import dialects

ROWS = np.array([[0.1, -2.5], [3.0, 4.123456]], np.float32)


def test_numbers_in_a_body_parse_back_to_the_same_float32():
    sent = msgspec.json.decode(dialects.oip_body(ROWS))["inputs"][0]
    assert np.array_equal(np.array(sent["data"], np.float32).reshape(sent["shape"]), ROWS)


def test_binary_request_states_the_length_of_its_json_part():
    path, headers, body = dialects.oip_binary("cnn", ROWS)
    length = int(headers[0].removeprefix("Inference-Header-Content-Length: "))
    assert msgspec.json.decode(body[:length])["inputs"][0]["parameters"] == {"binary_data_size": ROWS.nbytes}
    assert body[length:] == ROWS.tobytes()
    assert path == "/v2/models/cnn/infer"


def test_grpc_outputs_are_read_in_both_forms():
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="label", datatype="INT64", shape=[2])
    response.outputs.add(name="y", datatype="FP32", shape=[2, 2])
    response.outputs[1].contents.fp32_contents.extend(ROWS.ravel().tolist())
    assert np.array_equal(dialects.grpc_output(response, "y"), ROWS)
    response.raw_output_contents.extend([b"\0" * 16, (2 * ROWS).tobytes()])
    assert np.array_equal(dialects.grpc_output(response, "y"), 2 * ROWS)
    with pytest.raises(dialects.WrongAnswer, match="'z'"):
        dialects.grpc_output(response, "z")


@pytest.mark.parametrize("got", [ROWS + 0.01, ROWS[:1]])
def test_wrong_values_and_shapes_are_wrong_answers(got):
    dialects.check(ROWS, ROWS, "server")
    with pytest.raises(dialects.WrongAnswer, match="server"):
        dialects.check(got, ROWS, "server")


def test_a_whole_request_for_the_generator():
    request = dialects.http_request("/x", ("A: b",), b"body", 80)
    assert request == b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"
