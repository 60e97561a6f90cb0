"""Events and routes in words."""

from __future__ import annotations

import typing
from collections.abc import Callable

import msgspec
import pytest

from headrace.app import events
from headrace.cli import wording
from headrace.core.models import Artifact, Format, Signature, TensorSpec
from headrace.core.replicas import ReplicaState
from headrace.core.routes import EndpointRoute
from headrace.core.tensors import DType
from headrace.core.traffic import TrafficPolicy
from tests.fakes import deployment_route

EVENTS: list[tuple[events.Event, str]] = [
    (
        events.ModelInspected("fraud", "2", Artifact("/m/fraud.onnx", Format.ONNX, "onnx", "sha256:0")),
        "fraud version 2: onnx in /m/fraud.onnx, loading",
    ),
    (events.ModelFailed("fraud", "2", "no weights"), "fraud version 2 failed: no weights"),
    (events.ModelFailed("fraud", "", "not a model"), "fraud failed: not a model"),
    (
        events.EnvironmentBuilding("abc", ("fraud@7", "churn@1"), ("numpy==1.26.4", "scikit-learn==1.4.2")),
        "fraud@7 and churn@1: building environment abc with numpy==1.26.4, scikit-learn==1.4.2",
    ),
    (
        events.EnvironmentBuilding("abc", ("fraud@7",), tuple("abcdef")),
        "fraud@7: building environment abc with a, b, c, d, e, …",
    ),
    (
        events.EnvironmentProgress("abc", ("fraud@7",), "building its environment (7 packages resolved)"),
        "fraud@7: building its environment (7 packages resolved)",
    ),
    (events.EnvironmentDone("abc", ("fraud@7",), "built", 12.34), "fraud@7: environment abc built after 12.3 s"),
    (events.EnvironmentDone("abc", ("fraud@7",), "reused", 0.01), "fraud@7: environment abc reused"),
    (events.EnvironmentDone("abc", ("fraud@7",), "failed", 1.0), "fraud@7: environment abc failed after 1.0 s"),
    (events.Serving("u", "m", (), 1, 0.5), "serving 0 endpoints after 0.50 s"),
    (events.ReplicaRestarted("fraud@1#2", "out of memory"), "replica fraud@1#2 restarts: out of memory"),
    (events.VersionLoaded("fraud", "3", "2"), "fraud: version 3 took over from 2"),
    (
        events.TrafficShifted("fraud", ("champion",), {"challenger": 1.0}),
        "fraud: champion not ready, traffic goes to challenger 100 %",
    ),
    (
        events.RolloutMoved("fraud", "r1", "step", 1, 0.05, "4 checks passed"),
        "fraud: rollout r1 step 2, 0.05 of the traffic: 4 checks passed",
    ),
    (
        events.EndpointChanged("fraud", "endpoint.pause", "ada@host", "maintenance"),
        "fraud: endpoint.pause by ada@host: maintenance",
    ),
    (events.BatchingExplained("fraud@1", "limit 64: it pays"), "batching fraud@1: limit 64: it pays"),
    (events.Draining(30.0), "stopping: up to 30 s to finish accepted requests (a second Ctrl-C stops at once)"),
    (events.RequestsCut(1), "the time to drain (--drain) was over: 1 request was cut, answered with 503"),
    (events.RequestsCut(3), "the time to drain (--drain) was over: 3 requests were cut, answered with 503"),
    (events.Stopped(0), "stopped"),
    (events.Stopped(1), "stopped with exit code 1"),
]


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=lambda value: type(value).__name__)
def test_every_event_is_a_sentence(event: events.Event, line: str) -> None:
    assert wording.one_line(event) == line


def test_the_table_above_has_every_event() -> None:
    assert {type(event) for event, _ in EVENTS} == set(typing.get_args(events.Event))


def test_rows_say_how_each_deployment_is(serving: events.Serving) -> None:
    ready, failed = wording.endpoint_rows(serving.endpoints)
    assert ready == ("fraud", "1", "sklearn", "1/2", "ready", "'amount' FP64[-1], 'country' BYTES[-1]", "")
    assert failed == ("bad", "1", "", "0/1", "failed", "", "no weights")
    assert wording.started(serving) == "serving 1 of 2 endpoints after 1.23 s"


@pytest.mark.parametrize(
    ("states", "reason", "state"),
    [
        ((ReplicaState.READY,), "", "ready"),
        ((ReplicaState.READY, ReplicaState.FAILED), "", "ready"),
        ((ReplicaState.LOADING,), "", "loading"),
        ((ReplicaState.STARTING, ReplicaState.FAILED), "crashed", "loading"),
        ((ReplicaState.FAILED,), "", "failed"),
        ((), "not trusted", "failed"),
        ((), "", "loading"),
    ],
)
def test_states(
    endpoint: Callable[..., EndpointRoute], states: tuple[ReplicaState, ...], reason: str, state: str
) -> None:
    assert wording.state(endpoint("x", *states, reason=reason).deployments[0]) == state


def test_many_inputs_are_shortened(endpoint: Callable[..., EndpointRoute]) -> None:
    signature = Signature(tuple(TensorSpec(f"c{n}", DType.FP32, (-1,)) for n in range(30)), ())
    text = wording.inputs(endpoint("x", signature=signature).deployments[0])
    assert text.startswith("'c0' FP32[-1], ")
    assert text.endswith("'c5' FP32[-1] and 24 more")
    anything = Signature((), (), any_inputs=True)
    assert wording.inputs(endpoint("x", signature=anything).deployments[0]) == "any"


def test_examples_are_of_ready_endpoints_shortest_first(endpoint: Callable[..., EndpointRoute]) -> None:
    image = Signature((TensorSpec("image", DType.FP32, (-1, 3, 224, 224)),), ())
    event = events.Serving(
        "http://h:1",
        "http://h:2",
        (
            endpoint("img", ReplicaState.READY, signature=image),
            endpoint("fraud", ReplicaState.READY),
            endpoint("slow", ReplicaState.LOADING),
        ),
        1,
        1.0,
    )
    assert wording.examples(event) == [
        """curl -s http://h:1/v1/models/fraud:predict -d '{"instances":[{"amount":0.0,"country":"a"}]}'""",
        "curl -s http://h:1/v2/models/img",
        "headrace predict img --url http://h:1 --input image=@image.npy",
    ]


def test_no_more_examples_than_fit_a_screen(endpoint: Callable[..., EndpointRoute]) -> None:
    many = tuple(endpoint(f"m{n}", ReplicaState.READY) for n in range(9))
    event = events.Serving("http://h:1", "http://h:2", many, 1, 1.0)
    assert len(wording.examples(event)) == wording.EXAMPLES_SHOWN


def test_addresses(serving: events.Serving) -> None:
    assert wording.addresses(serving) == [
        ("REST", "http://127.0.0.1:8000"),
        ("gRPC", "127.0.0.1:8000"),
        ("metrics", "http://127.0.0.1:9000/metrics"),
        ("management", "http://127.0.0.1:9000"),
    ]
    secure = msgspec.structs.replace(serving, url="https://127.0.0.1:8000")
    assert wording.addresses(secure)[1] == ("gRPC", "127.0.0.1:8000 (TLS)")


def test_where_keys_are_asked_for_the_examples_send_one(serving: events.Serving) -> None:
    asking = msgspec.structs.replace(serving, asks_for_keys=True)
    assert wording.addresses(asking)[-1] == ("keys", "every request needs one: headrace keys create --help")
    (command, *_) = wording.examples(asking)
    assert command.startswith('curl -s -H "Authorization: Bearer $HEADRACE_API_KEY" http://127.0.0.1:8000/')


def test_the_log_tail_is_bounded() -> None:
    tail = wording.log_tail(events.ModelFailed("a", "1", "r", "\n".join(map(str, range(100))) + "\n"))
    assert tail == [str(n) for n in range(80, 100)]
    assert wording.log_tail(events.Stopped(0)) == []


def test_traffic_that_is_as_it_should_be_again() -> None:
    event = events.TrafficShifted("fraud", (), {"champion": 0.95, "challenger": 0.05})
    assert wording.one_line(event) == ("fraud: every deployment takes its share again: champion 95 %, challenger 5 %")


def test_versions_of_several_deployments_have_names_and_shares() -> None:
    champion, challenger = deployment_route(name="champion"), deployment_route(version="2", name="challenger")
    old = deployment_route(version="0")
    policy = TrafficPolicy({"champion": 19.0, "challenger": 1.0})
    endpoint = EndpointRoute("fraud", (champion, challenger, old), {}, policy)
    rows = wording.endpoint_rows([endpoint])
    assert [row.version for row in rows] == ["1 (champion 95 %)", "2 (challenger 5 %)", "0"]
