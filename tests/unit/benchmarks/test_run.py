import pytest

from benchmarks import run


def test_the_defaults_and_the_quick_form():
    assert (run.parse([]).rounds, run.parse([]).seconds) == (3, 3.0)
    quick = run.parse(["--quick"])
    assert (quick.rounds, quick.seconds) == (1, 1.0)
    assert run.parse(["--quick", "--rounds", "2"]).rounds == 2


def test_rows_are_named_and_checked():
    assert run.parse(["--only", "rest", "soak"]).only == ["rest", "soak"]
    with pytest.raises(SystemExit):
        run.parse(["--only", "nothing"])
