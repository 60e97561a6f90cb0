"""GET /api/v1/schema."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from headrace.api.app import create_app
from headrace.app.settings import schema as settings_schema


def test_the_schema_is_served(controller: Any, tmp_path: Path) -> None:
    app = create_app(controller, metrics_directory=tmp_path, schema=settings_schema.document)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
            return await client.get("/api/v1/schema")

    response = asyncio.run(get())
    assert (response.status_code, response.headers["content-type"]) == (200, "application/schema+json")
    assert response.json() == settings_schema.schema()
