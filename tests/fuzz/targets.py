"""What is fuzzed: every parser of bytes from the network. A target may raise caller errors and nothing else.

The first bytes of an input choose options (signature, header length, encoding), so that one target covers them all.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.core import binding, comparison, errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import DType
from headrace.protocols import (
    compression,
    credentials,
    golden_lines,
    grpc_frames,
    grpc_status,
    health,
    kserve_v1,
    oip_documents,
    oip_generate,
    oip_grpc,
    oip_grpc_documents,
    oip_rest,
    paths,
    reflection,
)

SIGNATURES = (
    Signature((), (), any_inputs=True),
    Signature((TensorSpec("x", DType.FP32, (-1, 2)),), (TensorSpec("x", DType.FP32, (-1, 2)),)),
    Signature((TensorSpec("t", DType.BYTES, (-1,)),), (TensorSpec("t", DType.BYTES, (-1,)),)),
    Signature(
        (
            TensorSpec("a", DType.FP32, (-1,)),
            TensorSpec("b", DType.INT64, (-1,)),
            TensorSpec("c", DType.BYTES, (-1,)),
            TensorSpec("d", DType.BOOL, (-1,), optional=True),
            TensorSpec('e"', DType.UINT8, (-1, -1)),
        ),
        (),
        columns=True,
    ),
    Signature((TensorSpec("h", DType.FP16, (2,)), TensorSpec("g", DType.BF16, ())), (), batchable=False),
    Signature((TensorSpec("n", DType.UINT64, ()),), (), batchable=False),
)

LIMIT = 1 << 16


def _split(data: bytes) -> tuple[Signature, int, bytes]:
    """A signature, a small number, and the rest."""
    head = data[:2].ljust(2, b"\0")
    return SIGNATURES[head[0] % len(SIGNATURES)], head[1], data[2:]


def _echo(signature: Signature, request: InferenceRequest) -> InferenceResponse:
    binding.bind(signature, request.tensors, request.parameters)
    return InferenceResponse("m", "1", request.tensors, request.id)


def fuzz_oip_rest(data: bytes) -> None:
    signature, option, body = _split(data)
    # Odd: plain JSON. Even: a header length around the place where the JSON part may end.
    size = None if option % 2 else body.rfind(b"}") + 1 + (option >> 1) % 3 - 1
    request, rendering = oip_rest.parse_request(body, size, signature)
    oip_rest.render_response(_echo(signature, request), rendering, signature)


def fuzz_oip_raw(data: bytes) -> None:
    signature, _, body = _split(data)
    request, rendering = oip_rest.parse_request(body, 0, signature)
    oip_rest.render_response(_echo(signature, request), rendering, signature)


def fuzz_oip_generate(data: bytes) -> None:
    signature, _, body = _split(data)
    request, _ = oip_generate.parse_generate(body, signature)
    oip_generate.render_generate_event(_echo(signature, request))


def fuzz_kserve_v1(data: bytes) -> None:
    signature, _, body = _split(data)
    request, rendering = kserve_v1.parse_request(body, None, signature)
    kserve_v1.render_response(_echo(signature, request), rendering, signature)


def fuzz_oip_grpc(data: bytes) -> None:
    signature, _, body = _split(data)
    request, rendering = oip_grpc.to_request(oip_grpc.decode_infer(body), signature)
    response = _echo(signature, request)
    oip_grpc.from_response(response, rendering)
    oip_grpc.stream_response(response, rendering, final=True)


def fuzz_grpc_requests(data: bytes) -> None:
    for decode in (
        oip_grpc_documents.decode_model,
        oip_grpc_documents.decode_index,
        health.decode_check,
        reflection.respond,
    ):
        try:
            decode(data)
        except errors.CallerError:
            continue


def fuzz_grpc_frames(data: bytes) -> None:
    _, option, body = _split(data)
    reader = grpc_frames.FrameReader(LIMIT, ("", "gzip", "deflate")[option % 3])
    step = option // 3 + 1
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
    reader.finish()


def fuzz_compression(data: bytes) -> None:
    _, option, body = _split(data)
    inflated = compression.decompress(("gzip", "deflate")[option % 2], body, LIMIT)
    assert len(inflated) <= LIMIT


def fuzz_text(data: bytes) -> None:
    """Short texts: paths, timeouts, Accept-Encoding, index bodies."""
    text = data.decode("latin-1")
    found = paths.match(text)
    assert found is None or found.methods
    compression.choose(text)
    for parse in (grpc_status.parse_timeout, oip_documents.parse_index):
        try:
            parse(data)
        except errors.CallerError:
            continue


def fuzz_credentials(data: bytes) -> None:
    """Values of the three headers, one a line; a line that is missing is a header that is."""
    values = data.split(b"\n", 2)
    first, second, third = (*values, *[None] * (3 - len(values)))
    found = credentials.read((first, second, third))
    assert isinstance(found, credentials.SignedBy) or found in data or b"asic" in data.lower()


def fuzz_golden_lines(data: bytes) -> None:
    """A file of golden requests; what is read and written again is the same."""
    for request in golden_lines.read(data, "golden.jsonl"):
        try:
            [again] = golden_lines.read(golden_lines.write(request), "again")
        except errors.CallerError as error:
            raise AssertionError(f"what was written is refused: {error.message}") from error
        assert again.streams == request.streams
        for one, two in zip((request.inputs, *request.answer), (again.inputs, *again.answer), strict=True):
            exact = {tensor.name: comparison.EXACT for tensor in one}
            assert comparison.compare(one, two, exact).agrees
        assert (again.parameters, again.tolerances, again.name) == (
            request.parameters, request.tolerances, request.name,
        )  # fmt: skip


TARGETS: dict[str, Callable[[bytes], None]] = {
    name.removeprefix("fuzz_"): target for name, target in list(globals().items()) if name.startswith("fuzz_")
}


def run(name: str, data: bytes) -> None:
    """Run a target; caller errors must also render over both transports."""
    try:
        TARGETS[name](data)
    except errors.CallerError as error:
        _answer(error, len(data))


def _answer(error: errors.CallerError, size: int) -> None:
    assert oip_rest.render_error(error).status < 500 or isinstance(error, errors.Unsupported)
    assert grpc_status.error_trailers(error)
    assert oip_grpc.stream_error(error)
    assert len(error.message) < 2_000 + 5 * size, "a message must not multiply its input"
