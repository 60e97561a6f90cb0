import pytest

from benchmarks import judge

FASTEST = {
    "prototype": 40_000,
    "MLServer": 2_000,
    "MLServer, in process": 3_000,
    "KServe": 2_500,
    "LitServe": 1_500,
    "BentoML": 1_000,
    "FastAPI, 1 worker": 1_500,
    "FastAPI, 2 workers": 4_000,
    "mosec": 30_000,
}


def rest_row(ours, **changes):
    rates = {"headrace": ours, **FASTEST, **changes}
    shapes = ("1", "16", "64")
    return {name: {c: [{"per_second": rate, "failed": 0}] for c in shapes} for name, rate in rates.items()}


def unmet(rows):
    return {verdict.measure for verdict in judge.judge(rows) if not verdict.met}


def test_a_row_that_reaches_everything():
    verdicts = judge.judge({"rest": rest_row(31_000)})
    assert len(verdicts) == 2 * len(judge.REST_TARGETS) + 2  # mosec at 64 only, and no failures
    assert all(verdict.met for verdict in verdicts)


def test_the_short_ones_are_named():
    assert unmet({"rest": rest_row(25_000)}) == {"REST c=64, against mosec"}
    assert unmet({"rest": rest_row(31_000, KServe=5_000)}) == {
        "REST c=16, against KServe",
        "REST c=64, against KServe",
    }


def test_failed_requests_are_never_a_success():
    row = rest_row(31_000)
    row["headrace"]["16"][0]["failed"] = 1
    assert unmet({"rest": row}) == {"REST, requests that failed"}


def test_peers_that_were_not_measured_are_not_judged():
    row = {name: found for name, found in rest_row(31_000).items() if name in ("headrace", "prototype")}
    assert [verdict.measure for verdict in judge.judge({"rest": row})] == [
        "REST c=16, against prototype",
        "REST c=64, against prototype",
        "REST, requests that failed",
    ]


def test_the_median_of_the_rounds_counts():
    row = rest_row(31_000)
    row["headrace"]["64"] = [{"per_second": rate, "failed": 0} for rate in (5_000, 31_000, 32_000)]
    assert not unmet({"rest": row})


def test_grpc_is_held_against_the_best_peer():
    def rounds(rate):
        return {shape: [{"per_second": rate, "failed": 0}] for shape in ("16", "64")}

    row = {"headrace": rounds(12_000), "MLServer": rounds(1_000), "KServe": rounds(2_600)}
    assert unmet({"grpc": row}) == {"gRPC c=64, against the best peer (KServe)"}


def open_round(p99, failed=0):
    ok = {"p50": p99 / 2, "p99": p99, "p999": p99}
    return {"kinds": {"small": {"latency": {"ok": ok}}}, "failed": failed}


@pytest.mark.parametrize(
    ("p50_us", "p99", "short"),
    [(300, 0.001, set()), (510, 0.001, {"c=1, p50", "c=1, p50 against the prototype"}),
     (300, 0.003, {"open loop 500/s, p99"})],
)  # fmt: skip
def test_latency(p50_us, p99, short):
    row = {
        "prototype": {"closed": [{"p50_us": 300}], "open": [open_round(0.001)]},
        "headrace": {"closed": [{"p50_us": p50_us}], "open": [open_round(p99)]},
    }
    assert unmet({"latency": row}) == short


def test_the_matrix_is_judged_by_its_worst_cell():
    def cell(rate, batch):
        return [{"per_second": rate, "mean_batch": batch, "failed": 0}]

    row = {"1x1": cell(1000, 30), "2x1": cell(990, 29), "1x4": cell(2000, 10), "2x4": cell(1900, 7)}
    verdicts = judge.judge({"matrix": row})
    assert [(verdict.value, verdict.met) for verdict in verdicts] == [("95 %", True), ("70 %", False)]
    assert "(2x4)" in verdicts[1].measure


def test_large_requests_and_their_cost_to_the_small():
    row = {
        "alone": [open_round(0.001)],
        "other endpoint": [open_round(0.0019)],
        "same endpoint": [open_round(0.0021, failed=1)],
    }
    assert unmet({"mixed": row}) == {
        "1 % of 5 MB JSON to the same endpoint, p99 of the small ones",
        "1 % of 5 MB JSON to the same endpoint, failed",
    }


def test_overload():
    growing = [100 << 20, *[(100 + i) << 20 for i in range(60)]]
    row = {
        "slow": {
            "peak": 200.0,
            "goodput": 170.0,
            "refusal_p99_s": 0.025,
            "memory": [{"name": "gateway", "resident": growing}, {"name": "worker", "resident": [1 << 20] * 60}],
        },
        "impatient": {"peak": [{"per_second": 100}], "goodput": [{"per_second": 81}]},
    }
    verdicts = judge.judge({"overload": row})
    assert [verdict.met for verdict in verdicts] == [False, False, False, True]
    assert verdicts[2].value == "1 of 2 processes grow"


@pytest.mark.parametrize(
    ("change", "met"),
    [({}, True), ({"exit_code": 1}, False), ({"not_ready_after_s": None}, False), ({"closed_after_s": 0.01}, False)],
)
def test_sigterm_is_orderly(change, met):
    one = {
        "rest_lost": 0, "grpc_lost": [], "exit_code": 0, "not_ready_after_s": 0.05, "closed_after_s": 1.1, **change,
    }  # fmt: skip
    assert [verdict.met for verdict in judge.judge({"sigterm": {"1 gateway": [one]}})] == [True, True, met]


def test_kills():
    assert unmet({"kill": {"kills": [1.0] * 29, "failed": 1}}) == {"29 × kill -9 of a replica, requests that failed"}


def fleet_row(**changes):
    def rounds(*values, key="per_second"):
        return [{key: value, "failed": 0, "cpu_us": 50.0} for value in values]

    def load(p50, p99):
        return {"16": [{"p50_us": p50, "p99_us": p99}] * 2}

    many = {
        "sizes": {"models": 1000, "endpoints": 200, "running": 20},
        "load_before": 0.5,
        "starts": {"file": [{"seconds": 4.0, "cpu_seconds": 7.0}], "restored": [{"seconds": 3.0, "cpu_seconds": 6.0}]},
        "lists": {"models": {"p50_ms": 12.0, "p99_ms": 30.0}, "endpoints": {"p50_ms": 5.0, "p99_ms": 20.0}},
        "latency": {"many": load(520, 900), "alone": load(500, 900)},
        "bytes": 900 << 20,
        "idle_cores": 0.04,
        "lazy_ms": [150.0, 250.0],
    }
    packed = {"endpoints": 200, "bytes": 700 << 20, "failed": 0, "processes": 10, "seconds": 4.0, "cpu_seconds": 5.0}
    rollback = {"gateways": 2, "visible_ms": [5.0, 9.0], "command_ms": [10.0, 12.0], "failed": 0}
    cost = {"plain": {"16": rounds(20_000, 10_000)}, "full": {"16": rounds(18_000, 9_000)}}
    row = {"many": many, "packed": packed, "rollback": rollback, "request_cost": cost}
    return {name: {"load_before": 0.5, **part, **changes.get(name, {})} for name, part in row.items()}


def test_a_fleet_that_reaches_everything():
    verdicts = judge.judge({"fleet": fleet_row()})
    assert all(verdict.met for verdict in verdicts)
    assert [verdict.value for verdict in verdicts if "throughput kept" in verdict.measure] == ["90 %"]


@pytest.mark.parametrize(
    ("part", "change", "short"),
    [
        ("packed", {"bytes": 4_100_000_000}, "200 packed endpoints, memory of all processes"),
        ("packed", {"failed": 1}, "200 packed endpoints, requests that failed"),
        ("rollback", {"visible_ms": [5.0, 101.0]}, "2 rollbacks, visible at the last gateway, longest"),
        ("many", {"lists": {"models": {"p50_ms": 12.0, "p99_ms": 101.0}}}, "list of models, p99"),
        ("many", {"starts": {"file": [{"seconds": 5.1}], "restored": [{"seconds": 3.0}]}}, "start from its file"),
    ],
)
def test_what_a_fleet_falls_short_of_is_named(part, change, short):
    (missed,) = unmet({"fleet": fleet_row(**{part: change})})
    assert missed.endswith(short)


def test_the_sides_of_a_round_are_compared_with_each_other():
    """The second round ran on a machine that was half as fast for both."""
    ours, theirs = [{"x": 18}, {"x": 9}, {"x": 9}], [{"x": 20}, {"x": 10}, {"x": 10}]
    assert judge.paired(ours, theirs, "x") == 0.9
    with pytest.raises(ValueError):
        judge.paired(ours[:2], theirs, "x")
