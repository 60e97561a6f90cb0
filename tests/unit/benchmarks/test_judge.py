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
