"""The XML API of Google Cloud Storage on moto's S3: the same requests with other header names, and other credentials.

Says nothing of Google's own error texts, consistency or sign-in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_S3_CREDENTIALS = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""Moto does not check signatures, but it treats a request without one as a stranger's."""


class GoogleNames:
    def __init__(self) -> None:
        self._s3 = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for name in [name for name in environ if name.startswith("HTTP_X_GOOG_")]:
            environ[name.replace("HTTP_X_GOOG_", "HTTP_X_AMZ_")] = environ.pop(name)
        environ["HTTP_AUTHORIZATION"] = _S3_CREDENTIALS
        answer: Iterable[bytes] = self._s3(environ, start_response)
        return answer


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, GoogleNames(), threaded=True)
    print(f"Running on http://127.0.0.1:{server.port} ", flush=True)
    server.serve_forever()
