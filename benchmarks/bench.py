"""What every row gets: the models, the servers, how long and how often to measure, where to put files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contenders
from benchmarks.assets import Assets
from benchmarks.contenders import Contender, Served
from benchmarks.load import generator, h2load, wrk
from benchmarks.load.plan import Arrivals, LoadPlan, LoadResult, RequestKind
from benchmarks.load.probe import ValueProbe


@dataclass
class Bench:
    assets: Assets
    raw: Path
    """Logs, bodies and tool outputs; not committed."""
    rounds: int = 3
    seconds: float = 3.0
    """Of one measurement in the throughput rows."""
    long_seconds: float = 60.0
    """Of the rows that the issue gives a minute: overload, kills."""
    soak_seconds: float = 600.0
    with_peers: bool = True

    def folder(self, *names: str) -> Path:
        path = self.raw.joinpath(*(name.replace(" ", "-").replace(",", "") for name in names))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def peers(self, model: str = "fraud") -> list[Contender]:
        return contenders.peers(self.assets, model) if self.with_peers else []

    def rotation(self, servers: Sequence[Contender]) -> Iterator[tuple[int, Contender]]:
        """Each server in turn, round after round, so that a slow minute of the machine hits all of them. Every other
        round runs backwards: then nobody always follows the same neighbour."""
        for round_number in range(self.rounds):
            for server in servers if round_number % 2 == 0 else reversed(servers):
                yield round_number, server

    def rest_bodies(self, served: Served) -> Path:
        dialect = served.contender.rest
        assert dialect is not None
        rows = served.contender.sample.rows[:64]
        bodies = [dialect.encode(rows[i : i + 1]) for i in range(len(rows))]
        return wrk.write_bodies(served.launch.folder / "bodies.txt", bodies)

    def wrk(self, served: Served, connections: int, headers: Sequence[str] = ()) -> wrk.WrkResult:
        """Closed loop of single rows for ``self.seconds``, values probed beside it."""
        dialect = served.contender.rest
        assert dialect is not None
        bodies = self.rest_bodies(served)
        with ValueProbe(served.check_rest):
            return wrk.run(served.url + dialect.path, bodies, (*dialect.headers, *headers), connections, self.seconds)

    def warm_up(self, served: Served) -> None:
        dialect = served.contender.rest
        assert dialect is not None
        wrk.run(served.url + dialect.path, self.rest_bodies(served), dialect.headers, 16, 1)

    def open_loop(
        self,
        served: Served,
        kinds: Sequence[RequestKind],
        arrivals: Arrivals,
        limits: Mapping[str, int | float] | None = None,
    ) -> LoadResult:
        return self.start_open_loop(served, kinds, arrivals, limits).result()

    def start_open_loop(
        self,
        served: Served,
        kinds: Sequence[RequestKind],
        arrivals: Arrivals,
        limits: Mapping[str, int | float] | None = None,
    ) -> generator.RunningLoad:
        plan = LoadPlan(port=served.port, kinds=list(kinds), arrivals=arrivals, **(limits or {}))  # type: ignore[arg-type]
        return generator.start(plan, served.launch.folder)

    def grpc_body(self, folder: Path, message: bytes) -> Path:
        path = folder / "message.bin"
        path.write_bytes(h2load.frame(message))
        return path
