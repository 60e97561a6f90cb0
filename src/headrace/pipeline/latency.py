"""The learned latency model of a deployment: a batch of n rows takes ``a + b·n`` seconds. Pure."""

from __future__ import annotations

_DECAY = 0.98
_MIN_WEIGHT = 4.0
_CLIP = 5.0
_DOUBTED_WEIGHT = 2.0
_RESOLUTION_S = 1e-9


class LatencyModel:
    """Exponentially weighted least squares over (rows, seconds). ``known`` after a few batches.

    A sample far above the prediction is clipped: one stall of the machine must not look like a slow model."""

    __slots__ = ("_sn", "_snn", "_st", "_stn", "_sw", "a", "b", "samples")

    def __init__(self) -> None:
        self._sw = self._sn = self._snn = self._st = self._stn = 0.0
        self.a = 0.0
        self.b = 0.0
        self.samples = 0

    @property
    def known(self) -> bool:
        return self.samples >= 3

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a finished batch. O(1)."""
        if self.known:
            expected = self.a + self.b * rows
            seconds = min(seconds, _CLIP * expected + 1e-4)
        self.samples += 1
        self._sw = self._sw * _DECAY + 1.0
        self._sn = self._sn * _DECAY + rows
        self._snn = self._snn * _DECAY + rows * rows
        self._st = self._st * _DECAY + seconds
        self._stn = self._stn * _DECAY + seconds * rows
        self._fit()

    def doubt(self) -> None:
        """What was learned is old: keep the fit, but let the next samples change it quickly."""
        if self._sw > _DOUBTED_WEIGHT:
            keep = _DOUBTED_WEIGHT / self._sw
            self._sw *= keep
            self._sn *= keep
            self._snn *= keep
            self._st *= keep
            self._stn *= keep

    def _fit(self) -> None:
        weight, n, t = self._sw, self._sn, self._st
        spread = self._snn - n * n / weight
        if spread > 0.05 * self._snn and weight > _MIN_WEIGHT:
            slope = (self._stn - n * t / weight) / spread
            # Time cannot fall with rows, nor can the fixed part be negative.
            self.b = min(max(slope, 0.0), t / n)
        elif self.samples <= 3 and not self.b:
            self.b = 0.0
        self.a = max((t - self.b * n) / weight, 0.0)

    def predict(self, rows: int) -> float:
        """Seconds that a batch of ``rows`` takes."""
        return self.a + self.b * rows

    def capacity(self, rows: int) -> float:
        """Rows per second of one replica at this batch size; 0 when not known."""
        took = self.predict(rows)
        return rows / took if took > _RESOLUTION_S else 0.0
