"""What TorchServe hands to a handler beside its input: a ``Context`` with the attributes and methods it documents.

Handlers use it by these names, so they are TorchServe's, not ours.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import Any

from headrace.core.release import VERSION


class RequestProcessor:
    """One request of a batch: its headers, and the status and headers that the handler sets for the answer."""

    def __init__(self, request_headers: dict[str, Any]) -> None:
        self._request_headers = request_headers
        self._response_headers: dict[str, str] = {}
        self._status = 200
        self._phrase: str | None = None

    def get_request_property(self, key: str) -> Any:
        return self._request_headers.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        return self._request_headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self._status = code
        self._phrase = reason_phrase

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str | None:
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        self._response_headers[key] = value

    def get_response_headers(self) -> dict[str, str]:
        return self._response_headers

    def get_response_header(self, key: str) -> str | None:
        return self._response_headers.get(key)


class Metrics:
    """Takes what handlers report and says once, in the log, that it is not collected: Headrace measures them itself."""

    def __init__(self) -> None:
        self._told = False

    def add_metric(self, *_: Any, **__: Any) -> None:
        if not self._told:
            self._told = True
            sys.stderr.write("metrics that this TorchServe handler adds are not collected; see /metrics\n")

    add_counter = add_time = add_size = add_percent = add_error = add_metric

    # With the objects that come of these a handler does the same in two steps.
    def add_metric_to_cache(self, *_: Any, **__: Any) -> Metrics:
        return self

    get_metric = add_metric_to_cache
    add_or_update = update = add_metric


class Context:
    """``model_dir`` is where the archive's files are; ``gpu_id`` is None: TorchServe's sign for a CPU."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, object], batch_size: int, config: dict[str, Any]
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.model_yaml_config = config
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": batch_size,
            "server_name": "headrace",
            "server_version": VERSION,
            "limit_max_image_pixels": True,
        }
        self.metrics = Metrics()
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] | None = None
        self.cl_socket = None

    def begin(self, request_headers: Sequence[dict[str, Any]]) -> None:
        """A new batch: one dict of headers per request."""
        self.request_processor = [RequestProcessor(headers) for headers in request_headers]
        self.request_ids = {index: str(uuid.uuid4()) for index in range(len(request_headers))}

    def get_request_id(self, idx: int = 0) -> str | None:
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        return self._request(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        return self._request(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        request = self._request(idx)
        return request.get_response_status_code(), request.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self._request(idx).report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for request in self.request_processor or ():
            request.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self._request(idx).get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self._request(idx).add_response_property(key, value)

    def _request(self, idx: int) -> RequestProcessor:
        if self.request_processor is None:
            raise RuntimeError("there is no request yet: the handler is still being initialized")
        return self.request_processor[idx]
