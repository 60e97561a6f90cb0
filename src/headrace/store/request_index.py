"""Which deployment answered which request of an endpoint, on disk, and the outcomes that were joined to them.

One SQLite file per endpoint, beside the segments that gateways write. What is read from a segment, how far it was read
and what it adds to the tallies is one transaction: nothing is counted twice or lost, whenever this process dies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.core import errors
from headrace.core.experiments import HOUR_S, HourTally, Joined, Outcome, Receipt
from headrace.core.request_log import Answered, Entry, Lost, Shares
from headrace.store.request_segments import OpenSegment, remove_abandoned, segments

FILE = "index.db"
_FIELDS = HourTally.__struct_fields__
_DELETED_AT_ONCE = 50_000
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS places (place INTEGER PRIMARY KEY, experiment TEXT, arm TEXT, UNIQUE (experiment, arm));
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, place INTEGER NOT NULL, at REAL NOT NULL,
    pinned INTEGER NOT NULL, reward REAL, reward_at REAL
);
CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY, at INTEGER NOT NULL, shares TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lost (experiment TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tallies (
    experiment TEXT, {", ".join(_FIELDS)}, PRIMARY KEY (experiment, arm, hour)
) WITHOUT ROWID;
"""

Key = tuple[str, str, int]
"""Experiment, arm, hour."""


class RequestIndex:
    """One endpoint's. Blocking, and for one thread at a time. Calls raise StorageFull, StoreFailed, Corrupted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tallies: dict[Key, HourTally] = {}
        """Touched in this transaction."""
        self._places: dict[tuple[str, str], int] = {}
        with self._typed():
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False, timeout=15.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        remove_abandoned(folder)

    def close(self) -> None:
        self._db.close()

    # --- what gateways have written ---

    def take_in(self) -> int:
        """Index everything that was written up to now; returns how many entries that were."""
        count = 0
        with self._typed():
            for path in segments(self._folder):
                segment = OpenSegment(path)
                try:
                    with self._writing():
                        count += self._read(segment)
                finally:
                    segment.close()
                if segment.ended:
                    path.unlink()
                    self._db.execute("DELETE FROM segments WHERE name = ?", (path.name,))
        return count

    def _read(self, segment: OpenSegment) -> int:
        found = segment.head()
        if found is None:
            return 0
        head, begin = found
        known = self._db.execute("SELECT at, shares FROM segments WHERE name = ?", (segment.path.name,)).fetchone()
        at, shares = begin, dict[str, float]()
        if known is not None:
            at, shares = known[0], msgspec.json.decode(known[1], type=dict[str, float])
        count = 0
        for entry, end in segment.entries(at):
            shares = self._take(entry, head.experiment, shares)
            at, count = end, count + 1
        if not count and known is not None:
            return 0  # looking often costs no writes
        self._db.execute(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
            (segment.path.name, at, msgspec.json.encode(shares).decode()),
        )
        return count

    def _take(self, entry: Entry, experiment: str, shares: dict[str, float]) -> dict[str, float]:
        """Returns the shares in force after it."""
        match entry:
            case Shares(found):
                return found
            case Lost(count):
                self._db.execute(
                    "INSERT INTO lost VALUES (?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                    (experiment, count),
                )
            case Answered():
                self._answered(entry, experiment, shares)
        return shares

    def _answered(self, entry: Answered, experiment: str, shares: dict[str, float]) -> None:
        added = self._db.execute(
            "INSERT INTO requests (id, place, at, pinned) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (entry.request_id, self._place(experiment, entry.arm), entry.at, entry.pinned),
        )
        hour = int(entry.at // HOUR_S)
        mine = self._tally((experiment, entry.arm, hour))
        if not added.rowcount:
            mine.repeated += 1
        elif entry.pinned:
            mine.pinned += 1
        else:
            mine.requests += 1
            mine.fallbacks += entry.fallback
            for arm, share in shares.items():
                self._tally((experiment, arm, hour)).expected += share

    def _place(self, experiment: str, arm: str) -> int:
        place = self._places.get((experiment, arm))
        if place is None:
            self._db.execute("INSERT OR IGNORE INTO places (experiment, arm) VALUES (?, ?)", (experiment, arm))
            query = "SELECT place FROM places WHERE experiment = ? AND arm = ?"
            (place,) = self._db.execute(query, (experiment, arm)).fetchone()
            self._places[experiment, arm] = place
        return int(place)

    # --- outcomes ---

    def join(self, outcomes: Iterable[Outcome], now: float) -> list[Receipt]:
        """All of them, or none when this raises. ``now``: Unix seconds, for outcomes that do not say when."""
        with self._typed(), self._writing():
            return [self._join(outcome, now) for outcome in outcomes]

    def _join(self, outcome: Outcome, now: float) -> Receipt:
        row = self._db.execute(
            "SELECT seq, experiment, arm, at, pinned, reward, reward_at FROM requests JOIN places USING (place)"
            " WHERE id = ?",
            (outcome.request_id,),
        ).fetchone()
        if row is None:
            return Receipt(outcome.request_id, Joined.UNKNOWN)
        seq, experiment, arm, at, pinned, before, before_at = row
        given_at = now if outcome.at is None else outcome.at
        status = _status(outcome.reward, given_at, before, before_at)
        if status is not Joined.OLDER:
            # Also when the reward is the same: what is older than this one is older now.
            self._db.execute(
                "UPDATE requests SET reward = ?, reward_at = ? WHERE seq = ?", (outcome.reward, given_at, seq)
            )
            if not pinned and status is not Joined.UNCHANGED:
                tally = self._tally((experiment, arm, int(at // HOUR_S)))
                if before is not None:
                    tally.remove(before)
                tally.add(outcome.reward)
        return Receipt(outcome.request_id, Joined.NOT_COUNTED if pinned else status, arm)

    # --- tallies ---

    def tallies(self, experiment: str) -> list[HourTally]:
        """Of every arm and hour."""
        query = f"SELECT {', '.join(_FIELDS)} FROM tallies WHERE experiment = ? ORDER BY hour, arm"
        with self._typed():
            return [HourTally(*row) for row in self._db.execute(query, (experiment,))]

    def lost(self, experiment: str) -> int:
        """Answered requests that no gateway could write down."""
        with self._typed():
            row = self._db.execute("SELECT count FROM lost WHERE experiment = ?", (experiment,)).fetchone()
        return 0 if row is None else int(row[0])

    def seed(self, experiment: str, tallies: Sequence[HourTally]) -> None:
        """Go on from these when nothing is known of the experiment here: the disk is a new one."""
        with self._typed(), self._writing():
            if not self._db.execute("SELECT 1 FROM tallies WHERE experiment = ?", (experiment,)).fetchone():
                self._tallies = {(experiment, t.arm, t.hour): t for t in tallies}

    def _tally(self, key: Key) -> HourTally:
        tally = self._tallies.get(key)
        if tally is None:
            query = f"SELECT {', '.join(_FIELDS)} FROM tallies WHERE experiment = ? AND arm = ? AND hour = ?"
            row = self._db.execute(query, key).fetchone()
            tally = self._tallies[key] = HourTally(*row) if row else HourTally(arm=key[1], hour=key[2])
        return tally

    # --- retention ---

    def forget(self, before: float, most: int) -> int:
        """Forget requests that were answered before a time, and the oldest beyond ``most``; their tallies stay. Returns
        how many; may leave some for the next call, so that none takes long."""
        with self._typed(), self._writing():
            newest, oldest = self._db.execute("SELECT max(seq), min(seq) FROM requests").fetchone()
            if newest is None:
                return 0
            # They are numbered in the order in which they were read, which is that of their times but for a second.
            kept = self._db.execute("SELECT seq FROM requests WHERE at >= ? ORDER BY seq LIMIT 1", (before,)).fetchone()
            first = newest + 1 if kept is None else kept[0]
            first = min(max(first, newest - most + 1), oldest + _DELETED_AT_ONCE)
            return self._db.execute("DELETE FROM requests WHERE seq < ?", (first,)).rowcount

    # --- transactions ---

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._tallies = {}
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._put_tallies()
            self._db.execute("COMMIT")
        except BaseException:
            self._places = {}
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._tallies = {}

    def _put_tallies(self) -> None:
        marks = ", ".join("?" * (len(_FIELDS) + 1))
        rows = [(key[0], *msgspec.structs.astuple(tally)) for key, tally in self._tallies.items()]
        self._db.executemany(f"INSERT OR REPLACE INTO tallies VALUES ({marks})", rows)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        where = self._folder / FILE
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if "disk is full" in str(error) or "No space left" in str(error):
                raise errors.StorageFull(f"{where}: the disk is full; nothing was changed") from error
            raise errors.StoreFailed(f"{where}: {error}") from error


def _status(reward: float, at: float, before: float | None, before_at: float | None) -> Joined:
    if before is None or before_at is None:
        return Joined.JOINED
    if at < before_at:
        return Joined.OLDER
    return Joined.UNCHANGED if reward == before else Joined.REPLACED
