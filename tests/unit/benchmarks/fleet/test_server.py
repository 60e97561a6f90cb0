"""What is read of a server's output, and how its processes are weighed."""

import psutil

from benchmarks.fleet import server


def test_events_are_read_line_by_line_and_an_unfinished_one_waits():
    output = b'{"type":"ModelInspected","endpoint":"m"}\nsome library says hello\n{"no":"event"}\n{"type":"Serv'
    assert [event["type"] for event in server.events_in(output)] == ["ModelInspected"]
    assert [event["type"] for event in server.events_in(output + b'ing"}\n')] == ["ModelInspected", "Serving"]
    assert server.events_in(b"") == []


def test_processes_are_weighed_together_and_the_dead_weigh_nothing():
    mine, gone = psutil.Process(), psutil.Popen(["true"])
    gone.wait()
    assert 1 << 20 < server.proportional_bytes([mine]) <= mine.memory_info().rss * 2
    assert server.proportional_bytes([gone]) == 0
    assert server.busy_seconds([mine]) > 0
    assert server.busy_seconds([gone]) == 0
