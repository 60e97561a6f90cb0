from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.api.rollout_schema import RolloutDocument
from headrace.cli import rollout_views
from headrace.client.rollout_status import RolloutStatus
from headrace.control.rollout_state import Phase, RolloutState
from headrace.control.rollout_story import Rollout
from tests import rollouts

NOW = rollouts.STARTED + 130


def status(rollout: Rollout) -> RolloutStatus:
    """As the API tells it to the client."""
    return msgspec.json.decode(RolloutDocument.of(rollout).model_dump_json(), type=RolloutStatus)


def text(rollout: Rollout, **more: Any) -> list[str]:
    return [line.plain for line in rollout_views.lines(status(rollout), NOW, **more)]


def test_every_check_is_said_in_words() -> None:
    shown = text(rollouts.judged())
    assert shown[0] == "fraud: fraud@7 → fraud@8, step 2 of 3, 5 % of the requests, for 30 s"
    assert shown[2] == (
        "  next      step 3 of 3: 50 % of the requests, when every gate that is needed has passed in this step,"
        " in 30 s at the earliest; else it pauses and asks a person in 59 min 30 s"
    )
    assert shown[3] == "  checks    pass          golden requests: 20 answered as recorded"
    assert shown[4].startswith("  verdict   ")
    verdict = rollouts.judged().verdict
    assert verdict is not None
    assert [line.split()[1] for line in shown[5 : 5 + len(verdict.checks)]] == [
        check.check.split()[0] for check in verdict.checks
    ]
    assert [line.split()[0] for line in shown[5 : 5 + len(verdict.checks)]] == [c.finding for c in verdict.checks]
    assert sum(line.endswith(" (warns)") for line in shown) == sum(not check.gate for check in verdict.checks)
    assert shown[-2].startswith("  story     2023-11-14 22:13:20Z  starting")
    assert text(rollouts.judged(), latest=1)[-1] == shown[-1].replace("            ", "  story     ", 1)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (RolloutState(Phase.STARTING, NOW), "starting its first replica, for 0 s"),
        (RolloutState(Phase.GOLDEN, NOW - 75), "golden requests, for 1 min 15 s"),
        (RolloutState(Phase.STEP, NOW - 60, 0), "step 1 of 3, 10 % mirrored, for 1 min"),
        (
            RolloutState(Phase.PAUSED, NOW - 7500, 2, paused_in=Phase.STEP),
            "paused in step 3 of 3, 50 % of the requests, for 2 h 5 min",
        ),
        (RolloutState(Phase.PROMOTED, NOW, 3), "all traffic, the old version stays warm, for 0 s"),
        (RolloutState(Phase.DONE, NOW, 3), "done"),
        (RolloutState(Phase.ROLLED_BACK, NOW, 1), "rolled back"),
        (RolloutState(Phase.ABORTED, NOW, 1), "aborted"),
    ],
)
def test_the_first_line_says_where_it_is(state: RolloutState, says: str) -> None:
    assert text(rollouts.rollout(state=state))[0] == f"fraud: fraud@7 → fraud@8, {says}"


def test_a_named_deployment_is_named() -> None:
    renamed = msgspec.structs.replace(rollouts.rollout(), deployment="champion")
    assert text(renamed)[0].startswith("fraud (champion): ")


def test_what_models_say_does_not_reach_the_terminal_as_control() -> None:
    state = RolloutState(Phase.ROLLED_BACK, NOW, 1, "bad\x1b[2J\nmodel")
    assert text(rollouts.rollout(state=state))[1] == "  because   bad [2J model"


def test_the_table_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    rollout_views.print_list([status(rollouts.judged()), status(rollouts.rollout())])
    _, first, second = capsys.readouterr().out.splitlines()
    assert "fraud@7 → fraud@8  step 2 of 3  5 %    ada  8 checks passed" in first
    assert "starting" in second
