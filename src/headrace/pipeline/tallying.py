"""Counts what a rollout is judged by: requests by their end, times, batches and predictions of two deployments.

A stream is counted twice: its time and prediction when its first response is there, its outcome when it ends.
Costs nothing where nothing is rolled out: a deployment has a counter only while a trial runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from headrace.core import errors
from headrace.core.tallies import BatchTally, Outcome, Tally, latency_bucket, outcome_of, value_bucket
from headrace.core.tensors import DType, Tensor
from headrace.core.trials import Trial, TrialTally

_MAX_LABELS = 200
"""Different predictions of an output that are told apart; what comes later is counted together."""
_OTHERS = "(others)"


class Slice:
    """Sums over some requests of a deployment."""

    __slots__ = ("latency", "outcomes", "predictions")

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.latency: Counter[int] = Counter()
        self.predictions: dict[str, Counter[str]] = {}

    def add(self, outcome: Outcome, seconds: float | None, predicted: Sequence[tuple[str, str]]) -> None:
        self.outcomes[outcome] += 1
        if seconds is not None:
            self.latency[latency_bucket(seconds)] += 1
        self._add_predictions(predicted)

    def add_first_response(self, seconds: float, predicted: Sequence[tuple[str, str]]) -> None:
        self.latency[latency_bucket(seconds)] += 1
        self._add_predictions(predicted)

    def _add_predictions(self, predicted: Sequence[tuple[str, str]]) -> None:
        for output, label in predicted:
            seen = self.predictions.setdefault(output, Counter())
            seen[label if label in seen or len(seen) < _MAX_LABELS else _OTHERS] += 1

    def tally(self, compute: dict[int, BatchTally]) -> Tally:
        predictions = {output: dict(seen) for output, seen in self.predictions.items()}
        return Tally(dict(self.outcomes), dict(self.latency), compute, predictions)


class DeploymentCounter:
    """Of one side of a trial. ``baseline`` above 0: a slice of that part is counted by itself as well."""

    __slots__ = ("_batches", "_seconds", "all", "baseline", "slice")

    def __init__(self, baseline: float = 0.0) -> None:
        self.all = Slice()
        self.slice = Slice()
        self.baseline = baseline
        self._batches: Counter[int] = Counter()
        self._seconds: dict[int, float] = {}

    def request(
        self, error: errors.HeadraceError | None, seconds: float | None, request_id: str, outputs: Sequence[Tensor]
    ) -> None:
        """A request has ended. ``seconds``: its whole time here, None for a stream whose first response was counted;
        ``outputs``: what it was answered, if it was, and not in a stream."""
        outcome = outcome_of(error)
        if error is not None and not isinstance(error, errors.DeadlineExceeded | errors.Cancelled):
            seconds = None
        predicted = _labels(outputs)
        for part in self._parts(request_id):
            part.add(outcome, seconds, predicted)

    def first_response(self, seconds: float, request_id: str, outputs: Sequence[Tensor]) -> None:
        """A stream has begun to answer, after ``seconds``; ``request`` tells later how it ended."""
        predicted = _labels(outputs)
        for part in self._parts(request_id):
            part.add_first_response(seconds, predicted)

    def _parts(self, request_id: str) -> Sequence[Slice]:
        # The same requests in every gateway, and others than those that a hash sends to a deployment.
        if self.baseline and _uniform(request_id) < self.baseline:
            return self.all, self.slice
        return (self.all,)

    def batch(self, rows: int, seconds: float) -> None:
        """A batch of this deployment was computed."""
        self._batches[rows] += 1
        self._seconds[rows] = self._seconds.get(rows, 0.0) + seconds

    def tally(self) -> Tally:
        return self.all.tally({rows: BatchTally(n, self._seconds[rows]) for rows, n in self._batches.items()})


class TrialCounters:
    """Both sides of an endpoint's trial."""

    __slots__ = ("new", "old", "trial")

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.new = DeploymentCounter()
        self.old = DeploymentCounter(trial.baseline)

    def follow(self, trial: Trial) -> bool:
        """Take another share over; False when it is another trial."""
        if (trial.old, trial.new) != (self.trial.old, self.trial.new):
            return False
        self.trial = trial
        self.old.baseline = trial.baseline
        return True

    def tally(self, endpoint: str) -> TrialTally:
        return TrialTally(endpoint, self.trial.new, self.new.tally(), self.old.tally(), self.old.slice.tally({}))


def _uniform(request_id: str) -> float:
    """A number in 0..1 that looks like chance, and is the same everywhere. Ids differ in their last digits only, which
    a checksum would not spread."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8, person=b"baseline").digest()) / 2**64


def _labels(outputs: Sequence[Tensor]) -> list[tuple[str, str]]:
    return [(tensor.name, label) for tensor in outputs if (label := predicted_label(tensor)) is not None]


def predicted_label(tensor: Tensor) -> str | None:
    """What was predicted for the first row, as something to count: a label, the class with the greatest score, or the
    bucket of a number. None: nothing that can be counted."""
    array = tensor.array
    if not array.size or not array.ndim:
        return None
    row = array[:1]
    if tensor.dtype is DType.BF16:
        return None
    if row.size == 1:
        return _label(row.reshape(-1)[0], tensor.dtype)
    if row.ndim == 2 and row.size <= _MAX_LABELS and row.dtype.kind == "f":
        return f"class {int(row.argmax())}"
    return None


def _label(value: object, dtype: DType) -> str:
    if isinstance(value, bytes):
        return value[:64].decode("utf-8", "replace")
    if dtype in (DType.FP16, DType.FP32, DType.FP64):
        return value_bucket(float(value))  # type: ignore[arg-type]
    return str(value)[:64]
