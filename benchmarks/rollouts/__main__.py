"""`python -m benchmarks.rollouts`: the error rates of the judge, as a Markdown table."""

from __future__ import annotations

import argparse
import functools
import time
from concurrent.futures import ProcessPoolExecutor

from benchmarks.rollouts import scenarios, simulation
from benchmarks.rollouts.simulation import Ended, Rates
from benchmarks.rollouts.traffic import Scenario
from headrace.control.analysis.settings import AnalysisSettings

HEADER = (
    "| scenario | rollouts | rolled back | before 25 % | promoted | a person asked | median end | failed first |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=10_000, help="of each healthy scenario and of each target")
    parser.add_argument("--power", type=int, default=1_000, help="rollouts of each other scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="", help="part of the scenario's name")
    args = parser.parse_args()
    print(HEADER)
    with ProcessPoolExecutor(args.processes) as pool:
        for index, scenario in enumerate(scenarios.ALL):
            if args.only not in scenario.name:
                continue
            few = (*scenarios.POWER, *scenarios.STRESS, *scenarios.OBJECTIVES)
            count = args.power if scenario in few else args.rollouts
            if not count:
                continue
            began = time.monotonic()
            one = functools.partial(_one, scenario, (args.seed, index))
            ends = pool.map(one, range(count), chunksize=max(1, count // (args.processes * 20)))
            found = simulation.rates(scenario, ends)
            print(row(found), flush=True)
            print(f"<!-- {scenario.name}: {time.monotonic() - began:.0f} s -->", flush=True)


def _one(scenario: Scenario, seed: tuple[int, int], index: int) -> Ended:
    return simulation.run(scenario, (*seed, index), AnalysisSettings())


def row(found: Rates) -> str:
    reasons = ", ".join(f"{check} {count}" for check, count in sorted(found.reasons.items(), key=lambda i: -i[1]))
    cells = [found.scenario, str(found.rollouts)]
    cells += [_rate(n, found.rollouts) for n in (found.rolled_back, found.early, found.done, found.paused)]
    return f"| {' | '.join(cells)} | {found.median_s / 60:.1f} min | {reasons or '—'} |"


def _rate(count: int, total: int) -> str:
    low, high = simulation.interval(count, total)
    return f"{count / total:.2%} [{low:.2%}, {high:.2%}]"


if __name__ == "__main__":
    main()
