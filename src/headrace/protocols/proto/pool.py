"""The private descriptor pool.

tritonclient and kserve register the same symbols in protobuf's process-wide pool; keeping ours apart lets them live
in one process with the server (notebooks, tests).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal import enum_type_wrapper

from headrace.protocols.proto import descriptors

_pool = descriptor_pool.DescriptorPool()

FILES: dict[str, bytes] = {}
"""Serialized FileDescriptorProto by file name, as reflection serves them. No file depends on another."""

for _serialized in descriptors.ALL:
    FILES[_pool.AddSerializedFile(_serialized).name] = _serialized


def names(file: str) -> dict[str, Any]:
    """What the generated ``_pb2`` module of a file holds: message classes, enums and their values."""
    found: dict[str, Any] = {}
    descriptor = _pool.FindFileByName(file)
    for name, message in descriptor.message_types_by_name.items():
        found[name] = message_factory.GetMessageClass(message)
    for name, enum in descriptor.enum_types_by_name.items():
        found[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        found.update({value.name: value.number for value in enum.values})
    found["DESCRIPTOR"] = descriptor
    return found


def file_of(symbol: str) -> str | None:
    """Name of the file that declares a fully qualified message, enum, service or method; None when there is none."""
    for found in (_pool.FindFileContainingSymbol, _file_of_method):
        try:
            return str(found(symbol).name)
        except KeyError:
            continue
    return None


def _file_of_method(symbol: str) -> FileDescriptor:
    return _pool.FindMethodByName(symbol).containing_service.file


def is_message(name: str) -> bool:
    try:
        _pool.FindMessageTypeByName(name)
    except KeyError:
        return False
    return True


def services() -> list[str]:
    """Fully qualified names of all services, sorted."""
    return sorted(
        service.full_name for file in FILES for service in _pool.FindFileByName(file).services_by_name.values()
    )


def methods() -> dict[str, tuple[bool, bool]]:
    """Path of every method, ``/package.Service/Method``: whether the client streams, whether the server does."""
    found: dict[str, tuple[bool, bool]] = {}
    for file in FILES:
        for service in _pool.FindFileByName(file).services_by_name.values():
            for method in service.methods:
                found[f"/{service.full_name}/{method.name}"] = (method.client_streaming, method.server_streaming)
    return found
