"""Measures metrics of the user for the judge of a rollout: queries of a Prometheus server."""

from __future__ import annotations

import math
from string import Template
from typing import Any

import httpx
import msgspec

from headrace.control.analysis.settings import MetricSettings
from headrace.control.rollout_story import Rollout
from headrace.core.endpoints import endpoint_and_version
from headrace.core.tallies import Measurement

_TIMEOUT_S = 10.0


class _Data(msgspec.Struct):
    resultType: str
    result: Any


class _Answer(msgspec.Struct):
    """Prometheus' HTTP API, ``/api/v1/query``."""

    status: str
    data: _Data | None = None
    error: str = ""


async def measure(metric: MetricSettings, rollout: Rollout) -> Measurement:
    """One look; what keeps it from being had is said in its ``error``, and is no fault of the new version."""
    url = f"{metric.prometheus.rstrip('/')}/api/v1/query"
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            response = await client.get(url, params={"query": query_of(metric, rollout)})
        answer = msgspec.json.decode(response.content, type=_Answer)
    except httpx.HTTPError as error:
        return Measurement(metric.name, error=f"{url}: {error or type(error).__name__}")
    except msgspec.MsgspecError:
        return Measurement(metric.name, error=f"{url} answered {response.status_code}, and not as Prometheus does")
    if answer.data is None:
        return Measurement(metric.name, error=f"{url}: {answer.error or answer.status}")
    return _value(metric.name, answer.data)


def query_of(metric: MetricSettings, rollout: Rollout) -> str:
    """With ``$endpoint``, ``$old`` and ``$new`` (the versions) put in."""
    old, new = (endpoint_and_version(id)[1] for id in (rollout.spec.old, rollout.spec.new))
    return Template(metric.query).safe_substitute(endpoint=rollout.endpoint, old=old, new=new)


def _value(name: str, data: _Data) -> Measurement:
    try:
        match data.resultType:
            case "scalar":
                text = data.result[1]
            case "vector" if len(data.result) == 1:
                text = data.result[0]["value"][1]
            case "vector" if not data.result:
                return Measurement(name, error="the query has no result")
            case "vector":
                return Measurement(name, error=f"the query has {len(data.result)} results; aggregate them, e.g. sum(…)")
            case other:
                return Measurement(name, error=f"the query gives a {other}; it must give one number")
        value = float(text)
    except (KeyError, IndexError, TypeError, ValueError):
        return Measurement(name, error="the result of the query is no number")
    return Measurement(name, error="the result is not a number") if math.isnan(value) else Measurement(name, value)
