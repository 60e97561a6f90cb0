"""``headrace experiment start|report|stop|list`` and ``headrace feedback``: which deployment does better, by what came
of its answers.

Clients of the management port; what a command needs is imported when it runs, so that its help is quick.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.management import AsJson, Endpoint, Server, State, TakeOver, connected
from headrace.cli.outcome import epilog
from headrace.core import errors

if TYPE_CHECKING:
    from headrace.client.experiments import Experiments, Report
    from headrace.core.experiments import Outcome, Receipt

app = typer.Typer(add_completion=False, no_args_is_help=True)
feedback_app = typer.Typer(add_completion=False)


@contextmanager
def _connected(server: str | None, state: str | None, as_json: bool) -> Iterator[Experiments]:
    with connected(server, state, as_json) as client:
        yield client.experiments


@app.callback(epilog=epilog("experiment start fraud --arms champion,challenger", "experiment report fraud"))
def _root() -> None:
    """Compare deployments of an endpoint by what comes of their answers."""


@app.command(
    epilog=epilog(
        "experiment start fraud --arms champion,challenger",
        "experiment start fraud --arms champion,challenger --bandit --floor 5 --metric conversion",
    )
)
def start(
    endpoint: Endpoint,
    arms: Annotated[str, typer.Option("--arms", metavar="A,B[,…]", help="Deployments, the control first.")],
    weights: Annotated[
        list[str] | None,
        typer.Option("--weight", metavar="ARM=WEIGHT", help="Share of an arm; without any all have the same."),
    ] = None,
    bandit: Annotated[
        bool, typer.Option("--bandit", help="Thompson sampling: shares follow the outcomes, towards the best arm.")
    ] = False,
    metric: Annotated[str, typer.Option("--metric", metavar="NAME", help="What the rewards stand for.")] = "reward",
    floor: Annotated[
        float | None, typer.Option("--floor", metavar="PERCENT", help="Least share of every arm of a bandit: 5.")
    ] = None,
    minimum: Annotated[
        int | None,
        typer.Option("--min-outcomes", metavar="N", help="Of every arm, before a bandit moves anything: 50."),
    ] = None,
    every: Annotated[
        float | None, typer.Option("--every", metavar="SECONDS", help="How often a bandit looks at the outcomes: 10.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", metavar="PERCENT", help="Of the intervals.")] = 95.0,
    take_over: TakeOver = False,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Start an experiment: it decides the endpoint's traffic, and outcomes can be given to all its requests."""
    with _connected(server, state, as_json) as experiments:
        report = experiments.start(
            endpoint,
            [arm.strip() for arm in arms.split(",")],
            weights=_weights(weights),
            bandit=_bandit(bandit, floor, minimum, every),
            metric=metric,
            confidence=confidence / 100,
            take_over=take_over,
        )
        _show(report, as_json)


def _weights(texts: Sequence[str] | None) -> dict[str, float] | None:
    from headrace.cli.endpoints import parse_weights

    return parse_weights(texts) if texts else None


def _bandit(wanted: bool, floor: float | None, minimum: int | None, every: float | None) -> dict[str, float] | bool:
    given = {"floor": None if floor is None else floor / 100, "minimum": minimum, "every_s": every}
    settings: dict[str, float] = {name: value for name, value in given.items() if value is not None}
    if settings and not wanted:
        raise errors.BadSettings("--floor, --min-outcomes and --every are of a bandit: add --bandit")
    return settings if wanted else False


@app.command(epilog=epilog("experiment report fraud", "experiment report fraud --json"))
def report(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Show what the last experiment on an endpoint has found: means, lift with intervals, warnings."""
    with _connected(server, state, as_json) as experiments:
        _show(experiments.report(endpoint), as_json)


@app.command(epilog=epilog("experiment stop fraud"))
def stop(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """End it; the shares stay as they are, and late outcomes still count."""
    with _connected(server, state, as_json) as experiments:
        _show(experiments.stop(endpoint), as_json)


@app.command("list", epilog=epilog("experiment list"))
def every(server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """List experiments, newest first."""
    with _connected(server, state, as_json) as experiments:
        found = experiments.list()
        if as_json:
            _write({"experiments": found})
            return
        for one in found:
            state_now = "running" if one.ended is None else f"ended: {one.why}"
            typer.echo(f"{one.endpoint}: {', '.join(one.arms)} by {one.metric} ({one.id}), {state_now}")


@feedback_app.command(
    epilog=epilog("feedback fraud 5f0c…-00000000002a --reward 1", "feedback fraud --file outcomes.jsonl")
)
def feedback(
    endpoint: Endpoint,
    request_id: Annotated[
        str | None, typer.Argument(metavar="[REQUEST_ID]", help="X-Request-Id of the answer.", show_default=False)
    ] = None,
    reward: Annotated[
        float | None, typer.Option("--reward", metavar="NUMBER", help="0 or 1, or any number: more is better.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help='Lines like {"request_id": "…", "reward": 1}; - reads stdin.'),
    ] = None,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Tell what came of requests. The latest outcome of a request counts; sending one again changes nothing."""
    with _connected(server, state, as_json) as experiments:
        receipts = experiments.feedback(endpoint, _outcomes(request_id, reward, file))
        if as_json:
            _write({"receipts": receipts})
        else:
            typer.echo(_counted(receipts))
        unknown = [receipt.request_id for receipt in receipts if receipt.status == "unknown"]
        if unknown and len(unknown) == len(receipts):
            raise errors.InvalidInput(
                f"no answered request of endpoint {endpoint!r} has the id {unknown[0]!r}; it is the X-Request-Id of an"
                " answer since the experiment began, not older than the retention"
            )


def _outcomes(request_id: str | None, reward: float | None, file: Path | None) -> list[Outcome]:
    from headrace.core.experiments import Outcome

    if file is not None and request_id is None and reward is None:
        return _read(file)
    if file is None and request_id is not None and reward is not None:
        return [Outcome(request_id, reward)]
    raise errors.BadSettings("give REQUEST_ID and --reward, or --file")


def _read(file: Path) -> list[Outcome]:
    import msgspec

    from headrace.core.experiments import Outcome

    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise errors.BadSettings(f"--file {file}: {error.strerror}") from error
    decode = msgspec.json.Decoder(Outcome).decode
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                found.append(decode(line))
            except msgspec.MsgspecError as error:
                raise errors.InvalidInput(f"{file}:{number}: {error}") from error
    return found


def _counted(receipts: Sequence[Receipt]) -> str:
    counts = Counter(str(receipt.status) for receipt in receipts)
    if len(receipts) == 1 and receipts[0].arm:
        return f"{receipts[0].status}: {receipts[0].arm}"
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(counts.items())) or "no outcomes"


# --- what people and machines read ---


def _write(document: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        _write(report)
        return
    from headrace.cli.experiment_views import lines

    for line in lines(report):
        typer.echo(line)
