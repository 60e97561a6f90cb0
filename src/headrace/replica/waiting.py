"""Batches that wait in a worker for the model, and how those of several gateways become one and part again."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from headrace.core.tensors import Array
from headrace.replica import execution, messages, ragged
from headrace.replica.connection import Connection
from headrace.replica.messages import Frame, RunHead


class Waiting(msgspec.Struct, gc=False):
    """A RUN frame that waits for the model."""

    connection: Connection
    frame: Frame
    head: RunHead
    arrays: list[Array]
    """One per tensor; empty when the batch is ragged."""
    withdrawn: frozenset[int] = frozenset()
    """Calls that nobody waits for any more."""
    blocks: ragged.Blocks = []
    """Of a ragged batch."""


def withdrawn(group: list[Waiting]) -> Collection[int]:
    """Calls of a group that nobody waits for any more, counted over the whole group."""
    if not any(waiting.withdrawn for waiting in group):
        return ()
    gone: set[int] = set()
    at = 0
    for waiting in group:
        gone.update(at + index for index in waiting.withdrawn if index < len(waiting.head.rows))
        at += len(waiting.head.rows)
    return gone


def compatible(one: Waiting, other: Waiting) -> bool:
    if other.frame.replica != one.frame.replica or other.frame.flags & messages.SOLO:
        return False
    a, b = one.head, other.head
    return (
        (a.ragged.padding if a.ragged else None) == (b.ragged.padding if b.ragged else None)
        and a.parameters == b.parameters
        # 1, 1.0 and True are equal, but not the same to a model.
        and (not a.parameters or [*map(type, a.parameters.values())] == [*map(type, b.parameters.values())])
        and len(a.tensors) == len(b.tensors)
        and all(
            x.name == y.name and x.dtype == y.dtype and x.shape[1:] == y.shape[1:]
            for x, y in zip(a.tensors, b.tensors, strict=True)
        )
    )


def padded_to(group: list[Waiting]) -> tuple[int, ...]:
    """Sizes of the dimensions of a ragged group; empty for others."""
    return ragged.longest([sizes for w in group if w.head.ragged is not None for sizes in w.head.ragged.sizes])


def join(group: list[Waiting], sizes: tuple[int, ...] = ()) -> dict[str, Array]:
    """The inputs of a group, padded to ``sizes`` when it is ragged."""
    head = group[0].head
    if head.ragged is not None:
        blocks = [[b for w in group for b in w.blocks[i]] for i in range(len(head.tensors))]
        return ragged.join(head.tensors, head.ragged.padding, sizes, blocks)
    names = [t.name for t in group[0].head.tensors]
    if len(group) == 1:
        return dict(zip(names, group[0].arrays, strict=True))
    return {name: np.concatenate([w.arrays[i] for w in group]) for i, name in enumerate(names)}


def split(group: list[Waiting], computed: execution.Computed) -> list[execution.Computed]:
    """Give each waiting batch its own rows and failures back."""
    failed = {f.index: f for f in computed.failures}
    parts: list[execution.Computed] = []
    call = row = 0
    for waiting in group:
        failures = []
        start = row
        for index, count in enumerate(waiting.head.rows):
            bad = failed.get(call)
            if bad is None:
                row += count
            else:
                failures.append(messages.CallFailure(index, bad.code, bad.message))
            call += 1
        answered = len(failures) < len(waiting.head.rows)
        outputs = {name: array[start:row] for name, array in computed.outputs.items()} if answered else {}
        parts.append(execution.Computed(outputs, failures, computed.compute))
    return parts
