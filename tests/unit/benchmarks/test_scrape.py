from benchmarks import scrape

TEXT = """# HELP headrace_batch_rows Rows in each batch that was computed.
# TYPE headrace_batch_rows histogram
headrace_batch_rows_bucket{model="a",version="1",le="1"} 5
headrace_batch_rows_sum{model="a",version="1"} 100
headrace_batch_rows_sum{model="b",version="1"} 20.5
headrace_batch_rows_count{model="a",version="1"} 10
headrace_up 1
"""


def test_samples_are_summed_over_labels():
    totals = scrape.totals(TEXT)
    assert totals["headrace_batch_rows_sum"] == 120.5
    assert totals["headrace_up"] == 1


def test_mean_batch_is_that_of_the_time_between():
    before = scrape.totals(TEXT)
    after = {**before, "headrace_batch_rows_sum": 420.5, "headrace_batch_rows_count": 20}
    assert scrape.mean_batch(before, after) == 30
    assert scrape.mean_batch(before, before) == 0
