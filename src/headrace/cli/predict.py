"""``headrace predict``: data from the shell, a file or stdin to a served model, its answers on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from headrace.app.settings.quantities import parse_duration
from headrace.cli import prediction_inputs
from headrace.cli.outcome import EXIT_CODES_HELP, reported
from headrace.cli.prediction_inputs import Chunk, Source
from headrace.cli.prediction_outputs import make_writer
from headrace.cli.prediction_recording import Recorder, recording
from headrace.client import Client, ModelMetadata
from headrace.client.example import predict_command
from headrace.client.inputs import to_tensors
from headrace.client.wire import Prediction
from headrace.core import errors
from headrace.core.binding import describe

EXAMPLES = f"""\
Examples:

  headrace predict fraud --data '{{"amount": [12.5], "country": ["US"]}}'
  headrace predict fraud --input amount=12.5 --input country=US
  headrace predict fraud transactions.csv --output jsonl > answers.jsonl
  cat rows.jsonl | headrace predict fraud - --json
  headrace predict img --input image=@cat.npy --version 2
  headrace predict fraud sample.csv --rows 1 --version 7 --record golden.jsonl
  headrace predict chat --input prompt=hi --stream --version 2 --record golden.jsonl

JSON data is an object of columns, a list of row objects, or a list of rows for a model with one input.

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLES)
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the endpoint.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="FILE.json, .jsonl or .csv; - reads stdin.", show_default=False),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="JSON", help="Inputs as JSON.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=VALUE", help="One input; NAME=@FILE.npy reads an array. Repeatable."
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Request parameter. Repeatable."),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="A version; default: what traffic gets.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print responses of a streaming model as they come.")
    ] = False,
    url: Annotated[str, typer.Option("--url", envvar="HEADRACE_URL", help="The server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(
            "--key", envvar="HEADRACE_API_KEY", metavar="KEY", help="API key; others on this machine see flags."
        ),
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="For each request: 30, 500ms, 2m.")] = "60s",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="json|jsonl|table", help="Default: table on a terminal, else json."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --output json; errors are JSON too.")] = False,
    form: Annotated[
        str | None, typer.Option("--format", metavar="json|jsonl|csv", help="Format of the input, if not by its name.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows in one request.")] = 1000,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="FILE", help="Append requests and answers as golden requests (docs/golden-requests.md)."
        ),
    ] = None,
    cacert: Annotated[
        Path | None, typer.Option("--cacert", metavar="FILE", help="Certificate authority of an https server.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not check an https server's certificate.")] = False,
) -> None:
    """Send data to a served model and print what it answers.

    Values are converted to the types that the model declares, and checked before anything is sent.
    """
    with reported(as_json):
        shown = _output(output, as_json)
        if form is not None and form not in prediction_inputs.FORMATS:
            raise errors.BadSettings(f"--format: expected {', '.join(prediction_inputs.FORMATS)}, got {form!r}")
        if sum(given is not None for given in (source, data, inputs or None)) > 1:
            raise errors.BadSettings("give one of FILE, --data and --input")
        if stream and record is not None and version is None:
            raise errors.BadSettings(
                "--record with --stream needs --version: what answers a stream instead of it, a fallback, is not told"
            )
        verify: bool | str = str(cacert) if cacert is not None else not insecure
        with Client(url, api_key=key, timeout=_seconds(timeout), verify=verify) as client:
            metadata = client.metadata(model, version)
            wanted = prediction_inputs.parse_pairs(parameters or [], _NO_INPUTS)
            with _chunks(source, data, inputs, form, metadata, rows, url) as chunks, _recorder(record) as recorder:
                if stream:
                    _stream(client, model, version, wanted, chunks, metadata, recorder)
                else:
                    asked = _predictions(client, model, version, wanted, chunks)
                    _show(_recorded(asked, wanted, metadata, recorder), metadata, shown)


_NO_INPUTS = ModelMetadata("", (), "", (), ())


def _output(output: str | None, as_json: bool) -> str:
    if as_json and output in (None, "json"):
        return "json"
    if output is None:
        return "table" if sys.stdout.isatty() else "json"
    if output not in ("json", "jsonl", "table") or as_json:
        raise errors.BadSettings(f"--output: expected json, jsonl or table, got {output!r}{' with --json' * as_json}")
    return output


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise errors.BadSettings(f"--timeout: expected a duration above 0 like 30, 30s, 500ms or 2m, got {text!r}")
    return seconds


@contextlib.contextmanager
def _chunks(
    source: str | None,
    data: str | None,
    pairs: list[str] | None,
    form: str | None,
    metadata: ModelMetadata,
    rows: int,
    url: str,
) -> Iterator[Iterable[Chunk]]:
    """The requests to make, whatever they are made from."""
    if data is not None:
        yield prediction_inputs.value_chunks(prediction_inputs.parse_json(data, "--data"), metadata, rows)
    elif pairs:
        yield [Chunk(prediction_inputs.parse_pairs(pairs, metadata))]
    elif source is not None:
        with prediction_inputs.open_source(source, sys.stdin.buffer, form) as opened:
            yield _with_progress(opened, prediction_inputs.read_chunks(opened, metadata, rows))
    else:
        takes = describe(metadata.inputs) if metadata.inputs else "any tensors"
        raise errors.BadSettings(
            f"no input; {metadata.name} takes {takes}. Try: {predict_command(url, metadata.name, metadata.inputs)}"
        )


def _with_progress(source: Source, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks; from the second on with a bar on stderr, when that is a terminal."""
    yield from _first(chunks)
    following = next(chunks, None)
    if following is None:
        return
    if not source.size or not sys.stderr.isatty():
        yield following
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(source.name, total=source.size)
        chunk: Chunk | None = following
        while chunk is not None:
            progress.update(task, completed=source.position(), description=f"{source.name}, row {chunk.first}")
            yield chunk
            chunk = next(chunks, None)


def _first(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    chunk = next(chunks, None)
    if chunk is not None:
        yield chunk


def _recorder(path: Path | None) -> contextlib.AbstractContextManager[Recorder | None]:
    return contextlib.nullcontext() if path is None else recording(path)


def _predictions(
    client: Client, model: str, version: str | None, parameters: dict[str, Any], chunks: Iterable[Chunk]
) -> Iterator[tuple[Chunk, Prediction]]:
    for chunk in chunks:
        try:
            prediction = client.infer(model, chunk.inputs, version, parameters)
        except errors.HeadraceError as error:
            if isinstance(error, errors.Unsupported) and "stream" in error.message:
                # The server names its routes; whoever is here has a flag.
                error.message = f"{error.message}; with this command: --stream"
            if chunk.first:
                error.message = f"in the request that begins with row {chunk.first}: {error.message}"
            raise
        yield chunk, prediction


def _recorded(
    answers: Iterable[tuple[Chunk, Prediction]],
    parameters: dict[str, Any],
    metadata: ModelMetadata,
    recorder: Recorder | None,
) -> Iterator[Prediction]:
    """The predictions, each written down before it is shown, where that is wanted."""
    for chunk, prediction in answers:
        if recorder is not None:
            recorder.add(to_tensors(chunk.inputs, metadata), parameters, prediction)
        yield prediction


def _show(predictions: Iterable[Prediction], metadata: ModelMetadata, shown: str) -> None:
    writer = make_writer(shown, sys.stdout)
    for prediction in predictions:
        writer.add(prediction, metadata.batchable or not metadata.inputs)
    writer.finish()


def _stream(
    client: Client,
    model: str,
    version: str | None,
    parameters: dict[str, Any],
    chunks: Iterable[Chunk],
    metadata: ModelMetadata,
    recorder: Recorder | None,
) -> None:
    for chunk in chunks:
        kept: list[dict[str, Any]] = []
        for answer in client.stream(model, chunk.inputs, version, parameters):
            sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
            sys.stdout.flush()
            if recorder is not None:
                kept.append(answer)
        if recorder is not None:
            recorder.add_stream(to_tensors(chunk.inputs, metadata), parameters, kept, metadata)
