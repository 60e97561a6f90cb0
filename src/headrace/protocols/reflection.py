"""gRPC server reflection, v1 and v1alpha: each request message gives one response message.

The versions have the same wire format under different package names, so one codec serves both.
"""

from __future__ import annotations

from headrace.protocols import grpc_messages
from headrace.protocols.grpc_status import Code
from headrace.protocols.proto import pool, reflection_v1_pb2

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def respond(body: bytes) -> bytes:
    """Answer one ServerReflectionRequest. Unknown names are answered in the message; raises InvalidInput for
    bytes that are no request."""
    request = grpc_messages.parse(reflection_v1_pb2.ServerReflectionRequest, body)
    response = reflection_v1_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
    match request.WhichOneof("message_request"):
        case "list_services":
            for name in pool.services():
                response.list_services_response.service.add(name=name)
        case "file_by_filename":
            _file(response, request.file_by_filename, request.file_by_filename)
        case "file_containing_symbol":
            _file(response, pool.file_of(request.file_containing_symbol), request.file_containing_symbol)
        case "file_containing_extension":
            asked = request.file_containing_extension
            _refuse(response, f"{asked.containing_type} extension {asked.extension_number}")
        case "all_extension_numbers_of_type":
            if pool.is_message(request.all_extension_numbers_of_type):
                # proto3 messages have no extensions: the list is empty.
                response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
            else:
                _refuse(response, request.all_extension_numbers_of_type)
        case _:
            response.error_response.error_code = Code.INVALID_ARGUMENT
            response.error_response.error_message = "the request asks for nothing"
    return response.SerializeToString()


def _file(response: reflection_v1_pb2.ServerReflectionResponse, file: str | None, asked: str) -> None:
    serialized = pool.FILES.get(file) if file is not None else None
    if serialized is None:
        _refuse(response, asked)
    else:
        response.file_descriptor_response.file_descriptor_proto.append(serialized)


def _refuse(response: reflection_v1_pb2.ServerReflectionResponse, asked: str) -> None:
    response.error_response.error_code = Code.NOT_FOUND
    response.error_response.error_message = f"not found: {asked}"
