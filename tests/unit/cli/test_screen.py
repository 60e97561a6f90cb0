"""The three ways events are printed."""

from __future__ import annotations

import io

import msgspec
import pytest

from headrace.app import events
from headrace.cli.screen import make_screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FAILURE = events.ModelFailed("bad", "1", "no weights", "Traceback\nValueError: [bold]x[/]")


def test_plain_lines_for_pipes(serving: events.Serving) -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = make_screen(out=out, err=err)
    for event in (FAILURE, serving, events.Stopped(0)):
        screen(event)
    assert out.getvalue().splitlines() == [
        "serving 1 of 2 endpoints after 1.23 s",
        "endpoint fraud version 1: ready; sklearn, 1/2 replicas; inputs 'amount' FP64[-1], 'country' BYTES[-1]",
        "endpoint bad version 1: failed; 0/1 replicas; no weights",
        "REST: http://127.0.0.1:8000",
        "gRPC: 127.0.0.1:8000",
        "metrics: http://127.0.0.1:9000/metrics",
        "management: http://127.0.0.1:9000",
        "try: curl -s http://127.0.0.1:8000/v1/models/fraud:predict"
        """ -d '{"instances":[{"amount":0.0,"country":"a"}]}'""",
        "stopped",
    ]
    assert err.getvalue().splitlines() == [
        "bad version 1 failed: no weights",
        "Traceback",
        "ValueError: [bold]x[/]",
    ]


def test_quiet_prints_failures_only(serving: events.Serving) -> None:
    for out in (io.StringIO(), Terminal()):
        err = io.StringIO()
        screen = make_screen(out=out, err=err, quiet=True)
        for event in (serving, FAILURE, events.ReplicaRestarted("bad@1#1", "died"), events.Stopped(0)):
            screen(event)
        assert out.getvalue() == ""
        assert "bad version 1 failed: no weights" in err.getvalue()
        assert "replica bad@1#1 restarts: died" in err.getvalue()


def test_a_terminal_gets_one_screen(serving: events.Serving) -> None:
    out, err = Terminal(), Terminal()
    screen = make_screen(out=out, err=err)
    screen(serving)
    screen(FAILURE)
    screen(events.BatchingExplained("fraud@1", "limit [64]"))
    screen(events.VersionLoaded("fraud", "2", "1"))
    text = out.getvalue()
    for part in ("fraud", "sklearn", "1/2", "ready", "failed", "no weights", "http://127.0.0.1:9000/metrics"):
        assert part in text
    # the command is there in one piece, to be copied
    assert """fraud:predict -d '{"instances":[{"amount":0.0,"country":"a"}]}'""" in text
    assert "batching fraud@1: limit [64]" in text
    assert "version 2 took over from 1" in text
    # what a model writes is not taken for markup
    assert "ValueError: [bold]x[/]" in err.getvalue()


def test_json_is_one_object_per_line_that_decodes_to_the_event(serving: events.Serving) -> None:
    out = io.StringIO()
    screen = make_screen(as_json=True, out=out, err=io.StringIO())
    for event in (FAILURE, serving, events.Stopped(3)):
        screen(event)
    lines = out.getvalue().splitlines()
    decoded = [msgspec.json.decode(line, type=events.Event) for line in lines]
    assert decoded[0] == FAILURE
    assert decoded[2] == events.Stopped(3)
    assert isinstance(decoded[1], events.Serving)
    assert decoded[1].endpoints[0].deployments[0].signature == serving.endpoints[0].deployments[0].signature
    assert msgspec.json.decode(lines[1])["type"] == "Serving"


def test_json_does_not_give_the_workers_tokens_away(serving: events.Serving) -> None:
    out = io.StringIO()
    make_screen(as_json=True, out=out)(serving)
    assert "secret" in msgspec.json.encode(serving).decode()
    assert "secret" not in out.getvalue()


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.writes = 0
        self._error = error

    def write(self, text: str) -> int:
        self.writes += 1
        raise self._error


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")], ids=type)
def test_a_reader_that_left_does_not_end_the_server(serving: events.Serving, as_json: bool, error: Exception) -> None:
    out = Broken(error)
    screen = make_screen(as_json=as_json, out=out, err=io.StringIO())
    screen(serving)
    screen(serving)
    assert out.writes == 1


def test_other_mistakes_are_not_hidden(serving: events.Serving) -> None:
    with pytest.raises(ValueError, match="ours"):
        make_screen(out=Broken(ValueError("ours")), err=io.StringIO())(serving)


def test_a_stream_without_unicode_gets_replacements() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    make_screen(out=out, err=io.StringIO())(events.BatchingExplained("a@1", "b·n"))
    assert raw.getvalue() == b"batching a@1: b?n\n"
