"""The learned verdict on batching: on where a batch costs little more than a row, off where it saves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance import saboteurs
from tests.acceptance.load import Load, output
from tests.serving import Served, eventually, served

TIMED = """\
import time

import headrace


class Timed(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        time.sleep(SECONDS)
        return {"y": x * 2}
"""


def batching(server: Served) -> dict[str, Any]:
    """What the one gateway has learned."""
    document = httpx.get(f"{server.management_url}/api/v1/deployments/m@1/batching").json()
    (gateway,) = document["gateways"]
    return dict(gateway)


@pytest.mark.parametrize(
    ("seconds", "limit", "says"),
    [("len(x) * 0.01", 1, "off: a batch takes"), ("0.005", 64, "up to 64 rows: a batch takes")],
    ids=["per row", "fixed"],
)
def test_the_verdict(tmp_path: Path, seconds: str, limit: int, says: str) -> None:
    model = saboteurs.write(tmp_path, TIMED.replace("SECONDS", seconds))
    with served(model, "--explain-batching", directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=16) as load:
            load.wait_for(300)
            eventually(lambda: batching(server)["limit"] == limit)
            learned = eventually(lambda: batching(server) if batching(server)["explanation"].startswith(says) else None)
        assert not load.failed()
        assert all(output(answer.document) == [2 * answer.number] for answer in load.answers)
        if limit == 1:
            # 10 ms a row, nothing fixed to speak of.
            assert 8 < learned["per_row_ms"] < 20
            assert "one by one" in learned["explanation"]
            assert "worth it from" in learned["explanation"]
        else:
            assert 4 < learned["fixed_ms"] < 15
        event = server.wait_event("BatchingExplained", where=lambda event: event["explanation"].startswith(says))
        assert event["deployment"] == "m@1"


@pytest.mark.parametrize(
    ("flags", "source", "limit", "says"),
    [
        (("--batching", "off"), TIMED, 1, "batching is off by setting"),
        (("--batching", "exact"), TIMED, 1, "every request is computed alone by setting"),
        (("--batching", "always", "--max-batch-size", "5"), TIMED, 5, "up to 5 rows by setting"),
        ((), saboteurs.ONE_AT_A_TIME, 1, "the model takes one request at a time"),
    ],
    ids=["off", "exact", "always", "unbatchable"],
)
def test_settings_are_explained_too(tmp_path: Path, flags: tuple[str, ...], source: str, limit: int, says: str) -> None:
    model = saboteurs.write(tmp_path, source.replace("SECONDS", "0.001"))
    with served(model, *flags, directory=tmp_path / "run") as server:
        with Load(server.address, "m", clients=4, count=20) as load:
            load.join()
        assert not load.failed()
        eventually(lambda: batching(server)["explanation"].startswith(says))
        assert batching(server)["limit"] == limit
