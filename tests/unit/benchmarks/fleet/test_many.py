from benchmarks.fleet import many


def test_percentiles_are_milliseconds_that_were_observed():
    found = many.percentiles([0.001 * n for n in range(1, 51)])
    assert (found["p50_ms"], found["p99_ms"]) == (25.5, 50.0)
