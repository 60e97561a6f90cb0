import pytest

from benchmarks import report
from benchmarks.machine import Machine
from benchmarks.results import Results, RowResult, read, record

MACHINE = Machine(
    at="2026-01-02T03:04:05+00:00",
    cpu="A processor",
    cores=2,
    memory_gib=8.0,
    system="Linux 6",
    python="3.11.2",
    load_before=0.1,
    versions={"headrace": "0.1.0"},
)
SETTINGS = {"rounds": 1.0, "seconds": 1.0}


def rest(rate):
    one = {"per_second": rate, "p50_us": 500, "p99_us": 1500, "failed": 0}
    return {count: [one] for count in ("1", "16", "64")}


def row(figures):
    return RowResult(MACHINE, SETTINGS, figures)


def test_only_what_stands_between_the_marks_is_replaced():
    document = f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n"
    replaced = report.replace_figures(document, "new")
    assert replaced == f"above\n{report.BEGIN}\n\nnew\n\n{report.END}\nbelow\n"
    assert report.replace_figures(replaced, "new") == replaced


@pytest.mark.parametrize("document", ["no marks", report.BEGIN, report.END])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(report.NoMarks):
        report.replace_figures(document, "new")


def test_servers_are_listed_by_speed_with_ours_marked():
    results = Results({"rest": row({"slow": rest(10), "headrace": rest(30_000), "prototype": rest(40_000)})})
    text = report.markdown(results, "plot.png")
    assert text.index("| prototype") < text.index("| **headrace** | 30,000 | 0.50 / 1.5 ") < text.index("| slow")
    assert "![Requests" in text
    assert "A processor, 2 cores" in text
    assert "| REST c=16, against prototype | ≥ 0.60× | 0.75× | yes |" in text


def test_a_target_that_is_not_met_is_shown_as_such():
    results = Results({"rest": row({"headrace": rest(10_000), "prototype": rest(40_000)})})
    assert "| ≥ 0.60× | 0.25× | **no** |" in report.markdown(results)


def test_soak_shows_memory_over_time():
    trace = {"name": "python -m headrace.replica.worker", "resident": [i << 20 for i in range(1, 101)]}
    soak = {"peak": 10.0, "per_second": 7.0, "failed": 0, "seconds": 600.0, "memory": [trace]}
    text = report.markdown(Results({"soak": row(soak)}))
    assert "| `python -m headrace.replica.worker` | 1.0 | 26.0 | 51.0 | 76.0 | 100.0 |" in text
    assert "10 min at 7/s, 70% of peak" in text
    assert "1 of 1 processes grow" in text


def test_the_length_of_the_long_rows_is_shown():
    rest_row = RowResult(MACHINE, {**SETTINGS, "long_seconds": 10.0}, {"headrace": rest(1)})
    assert "1 × 1 s, long part 10 s" in report.markdown(Results({"rest": rest_row}))
    assert "long part" not in report.markdown(Results({"rest": row({"headrace": rest(1)})}))


def test_a_row_replaces_only_itself(tmp_path):
    record(tmp_path, "rest", row({"headrace": rest(1)}))
    record(tmp_path, "kill", row({"kills": [], "failed": 0}))
    record(tmp_path, "rest", row({"headrace": rest(2)}))
    found = read(tmp_path)
    assert set(found.rows) == {"rest", "kill"}
    assert found.rows["rest"].figures["headrace"]["1"][0]["per_second"] == 2
    assert found.rows["kill"].machine == MACHINE


def test_the_fleet_is_told_with_the_load_beside_each_part():
    side = {"16": [{"p50_us": 500, "p99_us": 900}]}
    cost = {"16": [{"per_second": 20_000, "failed": 0, "cpu_us": 60.0}]}
    fleet = {
        "many": {
            "load_before": 1.5,
            "sizes": {"models": 1000, "endpoints": 200, "running": 20},
            "starts": {how: [{"seconds": 4.2, "cpu_seconds": 7.0}] for how in ("file", "restored")},
            "lists": {"models": {"p50_ms": 12.0, "p99_ms": 30.0}},
            "latency": {"many": {"16": [{"p50_us": 520, "p99_us": 900}]}, "alone": side},
            "bytes": 900 << 20,
            "idle_cores": 0.04,
            "lazy_ms": [150.0, 250.0],
        },
        "packed": {
            "load_before": 2.5, "endpoints": 200, "bytes": 700 << 20, "failed": 0, "processes": 10, "seconds": 4.0,
            "cpu_seconds": 5.0,
        },
        "rollback": {"load_before": 3.5, "gateways": 2, "visible_ms": [5.0, 9.0], "command_ms": [10.0], "failed": 0},
        "request_cost": {
            "load_before": 4.5, "plain": cost, "full": {"16": [{"per_second": 17_000, "failed": 0, "cpu_us": 70.0}]},
        },
    }  # fmt: skip
    text = report.markdown(Results({"fleet": row(fleet)}))
    assert all(f"(load average before: {load})" in text.replace("\n", " ") for load in (1.5, 2.5, 3.5, 4.5))
    assert "| `headrace.yaml` and state | 4.2 | 7.0 |" in text
    assert "| c=16 | 0.50 | 0.52 | 0.90 | 0.90 |" in text
    assert "10 processes, 700 MiB together (PSS)" in text.replace("\n", " ")
    assert "| c=16 | 20,000 | 17,000 | 85 % | 60 | 70 |" in text
    assert "| keys, routing, 1 % shadow and records, c=16, throughput kept | ≥ 85 % | 85 % | yes |" in text
