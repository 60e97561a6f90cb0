"""The bounded pull queue of one deployment: calls wait in groups of equal keys until a replica takes a batch."""

from __future__ import annotations

from collections import deque

from headrace.core import errors
from headrace.core.binding import Key
from headrace.core.calls import Call


class CallQueue:
    """First in, first out over all groups; a batch is the oldest call plus everything of its key that fits.

    Expired and abandoned calls are dropped when a batch forms, never computed; each drop is counted."""

    def __init__(self, cost: str = "rows") -> None:
        self.rows = 0
        self.bytes = 0
        self.count = 0
        self.expired = 0
        self.abandoned = 0
        self._order: deque[Call] = deque()
        self._groups: dict[Key, deque[Call]] = {}
        self._cost = cost

    def push(self, call: Call) -> None:
        bound = call.bound
        self.rows += bound.rows
        self.bytes += bound.nbytes
        self.count += 1
        self._order.append(call)
        group = self._groups.get(bound.key)
        if group is None:
            self._groups[bound.key] = deque((call,))
        else:
            group.append(call)

    def push_front(self, calls: list[Call]) -> None:
        """Put calls back that were sent but not begun, before everything that waits, in their order."""
        for call in reversed(calls):
            bound = call.bound
            # A leftover entry of this call in the order deque would hide it: give it a fresh, untaken life.
            call.taken = False
            self.rows += bound.rows
            self.bytes += bound.nbytes
            self.count += 1
            self._order.appendleft(call)
            self._groups.setdefault(bound.key, deque()).appendleft(call)

    def oldest(self) -> Call | None:
        """The call that waits longest, or None."""
        order = self._order
        while order and order[0].taken:
            order.popleft()
        return order[0] if order else None

    def take(self, limit: int, max_cost: float | None, alone: bool, now: float, service: float) -> list[Call]:
        """A batch: calls of one key, together at most ``limit`` rows and ``max_cost`` (a first call larger than a
        limit goes alone). Calls whose deadline falls before ``now + service`` are ended with DeadlineExceeded."""
        batch: list[Call] = []
        while not batch:
            oldest = self.oldest()
            if oldest is None:
                return batch
            batch = self._take_group(oldest.bound.key, limit, max_cost, alone, now, service)
        return batch

    def _take_group(
        self, key: Key, limit: int, max_cost: float | None, alone: bool, now: float, service: float
    ) -> list[Call]:
        group = self._groups[key]
        batch: list[Call] = []
        rows = 0
        cost = 0.0
        while group:
            call = group[0]
            if not self._worth(call, now, service):
                self._forget(group.popleft())
                if batch:
                    continue
                # The oldest call is gone: another group may be next.
                break
            if batch and (alone or rows + call.rows > limit):
                break
            if max_cost is not None:
                more = call_cost(call, self._cost)
                if batch and cost + more > max_cost:
                    break
                cost += more
            rows += call.rows
            batch.append(group.popleft())
            self._forget(call)
        if not group:
            del self._groups[key]
        return batch

    def _forget(self, call: Call) -> None:
        call.taken = True
        self.rows -= call.bound.rows
        self.bytes -= call.bound.nbytes
        self.count -= 1

    def _worth(self, call: Call, now: float, service: float) -> bool:
        if call.waiter.done():
            self.abandoned += 1
            return False
        if call.deadline <= now + service:
            self.expired += 1
            call.fail(errors.DeadlineExceeded(_late(call, now)))
            return False
        return True

    def expire(self, now: float) -> float:
        """End every waiting call whose deadline has passed and drop what nobody waits for any more; returns the
        earliest deadline left (inf: none)."""
        earliest = float("inf")
        dropped = False
        for group in self._groups.values():
            for call in group:
                if not call.waiter.done() and call.deadline > now:
                    earliest = min(earliest, call.deadline)
                    continue
                # `service` 0: a sweep only ends what is late already.
                self._worth(call, now, 0.0)
                self._forget(call)
                dropped = True
        if dropped:
            left = {key: deque(c for c in group if not c.taken) for key, group in self._groups.items()}
            self._groups = {key: group for key, group in left.items() if group}
            self._order = deque(c for c in self._order if not c.taken)
        return earliest

    def fail_all(self, error: errors.HeadraceError) -> None:
        """The deployment is gone: end everything that waits."""
        for group in self._groups.values():
            for call in group:
                self._forget(call)
                call.fail(error)
        self._groups.clear()
        self._order.clear()


def _late(call: Call, now: float) -> str:
    waited = f"{(now - call.enqueued) * 1e3:.0f} ms"
    if not call.sent:
        return f"waited {waited} in the queue"
    # Which part of it the replica took is not known: it died.
    return f"no answer after {waited}: replica {call.replica} died before it answered, and no other had time to"


def call_cost(call: Call, unit: str) -> float:
    """Cost of a call in ``rows``, ``elements`` or ``bytes``. A call that may be padded costs what it takes at the size
    of its bucket, whoever shares its batch."""
    bound = call.bound
    if unit == "rows":
        return call.rows
    elements = sum(array.size for array in bound.arrays)
    padded = elements if bound.padded is None else call.rows * bound.padded.elements()
    if unit == "elements":
        return padded
    return bound.nbytes if padded == elements else bound.nbytes * padded / max(elements, 1)
