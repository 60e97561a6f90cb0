"""The document that a deploy asks for."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.control.deploying import Deploy, check_free, document_for
from headrace.core import errors
from headrace.core.endpoint_records import MANUAL, Document, EndpointRecord, Owner, OwnerKind
from headrace.core.traffic import EndpointTraffic


def record(document: Document, owner: Owner = MANUAL) -> EndpointRecord:
    return EndpointRecord("fraud", document, (), EndpointTraffic(), owner)


def deploy(model: str = "fraud@8", **more: Any) -> Deploy:
    return Deploy("fraud", model, **more)


TWO = {"deployments": {"a": {"model": "fraud@6"}, "b": {"model": "fraud@7"}}, "traffic": {"a": 1}}


@pytest.mark.parametrize(
    ("wanted", "there", "made"),
    [
        (deploy(), None, {"model": "fraud@8"}),
        (deploy(replicas=0, lazy=True), None, {"model": "fraud@8", "replicas": 0, "lazy": True}),
        (deploy(deployment="main"), None, {"model": "fraud@8"}),
        (deploy(deployment="blue"), None, {"deployments": {"blue": {"model": "fraud@8"}}}),
        (
            deploy(),
            {"model": "fraud@7", "replicas": 3, "follow": "rollout:champion", "rollout": {"canary": "5"}},
            {"model": "fraud@8", "replicas": 3, "rollout": {"canary": "5"}},
        ),
        (deploy(replicas=1), {"model": "fraud@7", "replicas": 3}, {"model": "fraud@8", "replicas": 1}),
        (
            deploy(deployment="b"),
            {**TWO, "sticky": "key"},
            {
                "deployments": {"a": {"model": "fraud@6"}, "b": {"model": "fraud@8"}},
                "traffic": {"a": 1},
                "sticky": "key",
            },
        ),
        (
            deploy(),
            {"deployments": {"blue": {"model": "/repository", "version": "3", "threads": 2}}, "traffic": {"blue": 1}},
            {"deployments": {"blue": {"model": "fraud@8", "threads": 2}}, "traffic": {"blue": 1}},
        ),
        (
            deploy(deployment="next", replicas=2),
            {"model": "fraud@7", "threads": 2, "fallback": [{"constant": {"y": 0}}], "rollout": {"bake": "5m"}},
            {
                "deployments": {
                    "main": {"model": "fraud@7", "threads": 2},
                    "next": {"model": "fraud@8", "replicas": 2},
                },
                "traffic": {"main": 1},
                "fallback": [{"constant": {"y": 0}}],
                "rollout": {"bake": "5m"},
            },
        ),
    ],
)
def test_documents(wanted: Deploy, there: Document | None, made: Document) -> None:
    assert document_for(wanted, None if there is None else record(there)) == made


def test_of_several_one_is_named() -> None:
    with pytest.raises(errors.BadSettings, match=r"say which gets the version: --deployment a \| b"):
        document_for(deploy(), record(TWO))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": "fraud"}, "'fraud' names no version: write fraud@7 or fraud@champion"),
        ({"model": "/srv/fraud.onnx"}, "model name '/srv/fraud.onnx' is not valid"),
        ({"endpoint": "a b"}, "endpoint name 'a b' is not valid"),
        ({"deployment": "a b"}, "deployment name 'a b' is not valid"),
        ({"replicas": 1025}, "replicas: expected a number from 0 to 1024, got 1025"),
    ],
)
def test_what_is_no_version_of_the_registry_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        Deploy(**{"endpoint": "fraud", "model": "fraud@8", **more})
    assert says in caught.value.message


def test_the_owner_is_asked() -> None:
    check_free(deploy(), None)
    check_free(deploy(), record({"model": "fraud@7"}))
    mine = record({"model": "fraud@7"}, Owner(OwnerKind.FILE, "/srv/headrace.yaml"))
    check_free(deploy(take_over=True), mine)
    with pytest.raises(errors.Conflict, match=r"belongs to the file .*headrace rollout start fraud --to fraud@8"):
        check_free(deploy(), mine)
    with pytest.raises(errors.Conflict, match="belongs to the rollout r1; wait for its end, or abort it"):
        check_free(deploy(), record({"model": "fraud@7"}, Owner(OwnerKind.ROLLOUT, "r1")))
