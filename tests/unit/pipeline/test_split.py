"""Override, rule, sticky key, weights: which decides, and what a caller reads when nothing can be chosen."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from headrace.core import errors
from headrace.core.requests import InferenceRequest
from headrace.core.routes import DeploymentRoute, EndpointRoute, RouteTable
from headrace.core.traffic import OVERRIDES, Rule, Source, SourceKind, TrafficPolicy
from headrace.pipeline.router import Router
from tests.fakes import World, deployment_route

CHAMPION = deployment_route(id="m@1", version="1", name="champion")
CHALLENGER = deployment_route(id="m@2", version="2", name="challenger")
OLD = deployment_route(id="m@0", version="0")
HEADER = Source(SourceKind.HEADER, "x-user-id")
PLAN = Source(SourceKind.HEADER, "x-plan")
COUNTRY = Source(SourceKind.BODY, "country")
GOLD = Rule(PLAN, ("gold",), "challenger")


def router(
    policy: TrafficPolicy,
    traffic: dict[str, float] | None = None,
    deployments: tuple[DeploymentRoute, ...] = (CHAMPION, CHALLENGER, OLD),
    seed: int = 3,
) -> Router:
    made = Router(World().make, random.Random(seed).random)
    weights = {"m@1": 1.0} if traffic is None else traffic
    made.apply(RouteTable(1, 1, (EndpointRoute("m", deployments, weights, policy),)))
    return made


def chosen(following: Router, headers: dict[bytes, bytes] | None = None, version: str = "", **parameters: str) -> str:
    request = InferenceRequest([], parameters=dict(parameters)) if parameters else None
    return following.find("m", version, headers or {}, request).route.name


@pytest.mark.parametrize(
    ("policy", "headers", "expected"),
    [
        (TrafficPolicy(), {}, "champion"),
        (TrafficPolicy(rules=(GOLD,)), {b"x-plan": b"gold"}, "challenger"),
        (TrafficPolicy(rules=(GOLD,)), {b"x-plan": b"iron"}, "champion"),
        (TrafficPolicy(rules=(Rule(PLAN, (), "champion"), GOLD)), {b"x-plan": b"gold"}, "champion"),
        (TrafficPolicy(rules=(GOLD,), sticky=HEADER), {b"x-plan": b"gold", b"x-user-id": b"u"}, "challenger"),
        (TrafficPolicy(sticky=HEADER), {b"x-user-id": b"u"}, "champion"),
        (
            TrafficPolicy(rules=(GOLD,), overrides=OVERRIDES),
            {b"x-plan": b"gold", b"azureml-model-deployment": b"champion"},
            "champion",
        ),
        *[
            (TrafficPolicy(overrides=(name,)), {name.lower().encode(): b"challenger"}, "challenger")
            for name in OVERRIDES
        ],
        (
            TrafficPolicy(overrides=OVERRIDES),
            {b"x-amzn-sagemaker-target-variant": b"champion", b"x-headrace-deployment": b"challenger"},
            "challenger",
        ),
    ],
)
def test_the_first_word_counts(policy: TrafficPolicy, headers: dict[bytes, bytes], expected: str) -> None:
    assert chosen(router(policy), headers) == expected


def test_a_version_bypasses_everything() -> None:
    policy = TrafficPolicy(rules=(GOLD,), overrides=OVERRIDES)
    headers = {b"x-plan": b"gold", b"x-headrace-deployment": b"challenger"}
    following = router(policy)
    assert following.find("m", "0", headers).route.id == "m@0"
    assert chosen(following, headers, "1") == "champion"


@pytest.mark.parametrize("deployments", [(CHAMPION,), (CHAMPION, CHALLENGER)])
def test_an_override_that_is_not_allowed_is_refused_never_ignored(deployments: tuple[DeploymentRoute, ...]) -> None:
    headers = {b"azureml-model-deployment": b"champion"}
    with pytest.raises(errors.InvalidInput, match=r"azureml-model-deployment may not choose.*no header may"):
        chosen(router(TrafficPolicy(), deployments=deployments), headers)
    with pytest.raises(errors.InvalidInput, match="allowed: X-Headrace-Deployment"):
        chosen(router(TrafficPolicy(overrides=OVERRIDES[:1]), deployments=deployments), headers)


def test_an_override_that_names_nobody_says_who_there_is() -> None:
    following = router(TrafficPolicy(overrides=OVERRIDES))
    with pytest.raises(errors.UnknownModel, match="has no deployment 'chalenger'; it has: challenger, champion"):
        chosen(following, {b"x-headrace-deployment": b"chalenger"})


def test_an_override_reaches_a_deployment_without_weight_or_replicas() -> None:
    down = deployment_route(id="m@2", version="2", name="challenger", replicas=())
    following = router(TrafficPolicy(overrides=OVERRIDES), deployments=(CHAMPION, down))
    assert chosen(following, {b"x-headrace-deployment": b"challenger"}) == "challenger"


def test_a_rule_does_not_send_requests_into_a_deployment_that_is_down() -> None:
    down = deployment_route(id="m@2", version="2", name="challenger", replicas=())
    assert (
        chosen(router(TrafficPolicy(rules=(GOLD,)), deployments=(CHAMPION, down)), {b"x-plan": b"gold"}) == "champion"
    )
    unknown = Rule(PLAN, (), "nobody")
    assert chosen(router(TrafficPolicy(rules=(unknown,))), {b"x-plan": b"gold"}) == "champion"


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("sticky", [False, True])
def test_ten_thousand_requests_match_the_weights(share: float, sticky: bool) -> None:
    """Within 5 standard deviations of the binomial distribution."""
    policy = TrafficPolicy(sticky=HEADER if sticky else None)
    following = router(policy, {"m@1": 1 - share, "m@2": share})
    found = Counter(chosen(following, {b"x-user-id": b"%d" % n}) for n in range(10_000))
    assert abs(found["challenger"] - 10_000 * share) < 5 * math.sqrt(10_000 * share * (1 - share))


def test_a_sticky_key_stays_and_a_request_without_one_is_drawn() -> None:
    policy = TrafficPolicy(sticky=HEADER)
    following, another = (router(policy, {"m@1": 1.0, "m@2": 1.0}, seed=seed) for seed in (1, 2))
    for n in range(50):
        headers = {b"x-user-id": b"user %d" % n}
        assert len({chosen(one, headers) for one in (following, another) for _ in range(5)}) == 1
    assert {chosen(following) for _ in range(50)} == {"champion", "challenger"}


def test_keys_of_deployments_without_names_are_drawn() -> None:
    one, two = deployment_route(id="m@1", version="1"), deployment_route(id="m@2", version="2")
    following = router(TrafficPolicy(sticky=HEADER), {"m@1": 1.0, "m@2": 1.0}, (one, two))
    assert {following.find("m", "", {b"x-user-id": b"u"}).route.id for _ in range(50)} == {"m@1", "m@2"}


def test_body_policies_choose_once_the_body_is_known() -> None:
    following = router(TrafficPolicy(rules=(Rule(COUNTRY, ("DE",), "challenger"),), sticky=HEADER))
    reference = following.find("m", "", {})
    assert reference.reads_body
    assert (chosen(following, country="DE"), chosen(following, country="FR")) == ("challenger", "champion")
    assert chosen(following, {}, "1", country="DE") == "champion"


def test_bodies_are_decoded_by_a_deployment_that_has_loaded() -> None:
    loading = deployment_route(id="m@1", version="1", name="champion", signature=None)
    policy = TrafficPolicy(sticky=COUNTRY)
    traffic = {"m@1": 1.0, "m@2": 1.0}
    assert chosen(router(policy, traffic, (loading, CHALLENGER))) == "challenger"


def test_only_endpoints_with_several_deployments_tell_which_answered() -> None:
    several, one = router(TrafficPolicy()), router(TrafficPolicy(), deployments=(CHAMPION,))
    assert several.find("m", "").header == (b"x-headrace-deployment", b"champion")
    assert several.find("m", "0").header is None
    assert one.find("m", "").header is None


def test_nobody_takes_traffic() -> None:
    with pytest.raises(errors.NotReady, match="no version that takes traffic"):
        chosen(router(TrafficPolicy(sticky=HEADER), {}))


def test_the_greatest_share_describes_the_endpoint() -> None:
    following = router(TrafficPolicy(sticky=HEADER), {"m@1": 0.4, "m@2": 0.6})
    assert {following.describing("m", "").route.name for _ in range(20)} == {"challenger"}
    assert following.describing("m", "0").route.id == "m@0"
    with pytest.raises(errors.NotReady, match="no version that takes traffic"):
        router(TrafficPolicy(), {}).describing("m", "")
    with pytest.raises(errors.UnknownModel, match="model 'n' not found"):
        following.describing("n", "")
