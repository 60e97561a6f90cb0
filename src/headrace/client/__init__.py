"""What users import to call a server: ``Client`` and ``AsyncClient``. Knows wire formats, not how serving works."""

from headrace.client.async_client import AsyncClient
from headrace.client.client import Client
from headrace.client.metadata import ModelMetadata

__all__ = ["AsyncClient", "Client", "ModelMetadata"]
