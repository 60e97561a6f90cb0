"""When batches leave, what comes back, and what happens to calls when replicas die."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, BatchMode
from headrace.core.models import SlotKind, Slots
from headrace.core.replicas import ReplicaState
from headrace.pipeline.deployment import Deployment
from headrace.telemetry.metrics import Refusal
from tests import fakes
from tests.fakes import World


def error_of(call: Call) -> type[errors.HeadraceError]:
    assert call.waiter.done(), "the call has not ended"
    assert call.error is not None
    return type(call.error)


def answered(call: Call) -> bool:
    return call.waiter.done() and call.error is None and call.outputs is not None


def sizes(replica: fakes.FakeReplica) -> list[int]:
    return [len(calls) for calls, *_ in replica.sent]


# --- dispatch ---


def test_idle_replica_gets_a_lone_call_at_once() -> None:
    world = World()
    replica = world.replica()
    call = world.call()
    world.run()
    assert sizes(replica) == [1]
    replica.answer()
    assert answered(call)


def test_calls_of_one_loop_iteration_share_a_batch() -> None:
    world = World()
    replica = world.replica()
    for _ in range(5):
        world.call()
    world.run()
    assert sizes(replica) == [5]


def test_call_that_would_be_alone_anyway_leaves_in_the_same_turn_of_the_loop() -> None:
    world = World()
    replica = world.replica()
    for _ in range(8):
        world.call()
        assert replica.outstanding == 0, "it waits for company that comes in this turn"
        world.run()
        replica.answer()
    lone = world.call()
    assert sizes(replica) == [1] * 9
    for _ in range(3):
        world.call()
    assert len(replica.sent) == 9, "what meets a running batch waits for it"
    replica.answer()
    assert answered(lone)
    assert sizes(replica)[9:] == [3]
    replica.answer()
    for _ in range(2):
        world.call()
    world.run()
    assert sizes(replica)[10:] == [2], "after a batch with company, company is waited for"


def test_busy_replica_pulls_everything_that_waited_up_to_the_limit() -> None:
    world = World(batching=BatchingSettings(max_batch_size=8))
    world.deployment.learn([(1, 0.010)] * 5)
    replica = world.replica()
    world.call()
    world.run()
    for _ in range(7):
        world.call()
    world.run()
    assert sizes(replica) == [1], "no second batch while the first runs and the next is not full"
    replica.answer()
    assert sizes(replica) == [1, 7]


def test_full_batch_is_given_to_a_busy_replica_as_its_second() -> None:
    world = World(batching=BatchingSettings(max_batch_size=4))
    replica = world.replica()
    world.call()
    world.run()
    for _ in range(9):
        world.call()
    world.run()
    assert sizes(replica) == [1, 4], "one running, one ready, and never a third"
    assert world.deployment.queue.count == 5


def test_idle_replica_is_preferred_to_a_second_batch() -> None:
    world = World(batching=BatchingSettings(max_batch_size=4))
    first, second = world.replica(), world.replica()
    world.call()
    world.run()
    for _ in range(4):
        world.call()
    world.run()
    assert sorted([*sizes(first), *sizes(second)]) == [1, 4]
    assert len(first.batches) == len(second.batches) == 1


def test_second_batch_goes_out_when_the_running_one_is_about_to_end() -> None:
    world = World()
    world.deployment.learn([(1, 0.010)] * 5)
    replica = world.replica()
    world.call()
    world.run()
    world.call()
    world.run(0.005)
    assert sizes(replica) == [1]
    world.run(0.0048)
    assert sizes(replica) == [1, 1]


def test_nothing_is_put_behind_a_batch_that_hangs() -> None:
    world = World(batching=BatchingSettings(max_batch_size=2))
    world.deployment.learn([(1, 0.010)] * 5)
    hung, other = world.replica(), world.replica()
    world.call()
    world.call()
    world.run()
    if not hung.sent:
        hung, other = other, hung
    world.run(5.0)
    calls = [world.call() for _ in range(6)]
    world.run()
    assert sizes(hung) == [2], "calls behind a hung batch would wait for the replica timeout"
    while other.batches:
        other.answer()
    assert all(answered(c) for c in calls)


def test_draining_replica_gets_nothing_new() -> None:
    world = World()
    old, new = world.replica(), world.replica()
    old.draining = True
    for _ in range(3):
        world.call()
        world.run()
        new.answer()
    assert not old.sent


def test_batches_respect_keys_and_are_first_in_first_out() -> None:
    world = World()
    replica = world.replica()
    world.call()
    world.run()
    modes = ["a", "b", "a", "c", "b", "a"]
    calls = [world.call(mode=mode) for mode in modes]
    world.run()
    while replica.batches:
        replica.answer()
    taken = [[calls.index(c) for c in batch] for batch, *_ in replica.sent[1:]]
    assert taken == [[0, 2, 5], [1, 4], [3]]


def test_call_larger_than_the_limit_goes_alone() -> None:
    world = World(batching=BatchingSettings(max_batch_size=4, mode=BatchMode.ALWAYS))
    replica = world.replica()
    world.call(1)
    world.run()
    for rows in (3, 9, 2, 2):
        world.call(rows)
    world.run()
    while replica.batches:
        replica.answer()
    assert [[c.rows for c in batch] for batch, *_ in replica.sent] == [[1], [3], [9], [2, 2]]


@pytest.mark.parametrize(("unit", "limit"), [("rows", 3.0), ("elements", 6.0), ("bytes", 24.0)])
def test_cost_bounds_a_batch(unit: str, limit: float) -> None:
    world = World(batching=BatchingSettings(max_batch_cost=limit, cost=unit))
    replica = world.replica()
    world.call()
    world.run()
    for _ in range(7):
        world.call()
    world.run()
    while replica.batches:
        replica.answer()
    assert sizes(replica) == [1, 3, 3, 1]


def test_worker_must_not_join_batches_whose_cost_is_bounded() -> None:
    world = World(batching=BatchingSettings(max_batch_cost=3.0))
    replica = world.replica()
    world.call()
    world.run()
    assert [limit for _, limit, *_ in replica.sent] == [1]


@pytest.mark.parametrize("mode", [BatchMode.EXACT, BatchMode.OFF])
def test_alone_means_one_call_per_batch_and_no_joining(mode: BatchMode) -> None:
    world = World(batching=BatchingSettings(mode=mode))
    replica = world.replica()
    for _ in range(3):
        world.call(2)
    world.run()
    while replica.batches:
        replica.answer()
    assert sizes(replica) == [1, 1, 1]
    assert {limit for _, limit, *_ in replica.sent} == {1}


def test_concurrent_slots_are_filled_and_the_least_busy_replica_is_preferred() -> None:
    world = World(slots=Slots(SlotKind.CONCURRENT, 3))
    one, two = world.replica(), world.replica()
    for _ in range(8):
        world.call()
    world.run()
    assert len(one.batches) == len(two.batches) == 3
    assert world.deployment.queue.count == 2
    two.answer()
    assert len(two.batches) == 3


def test_max_queue_delay_holds_an_idle_replica_back_until_the_batch_is_full_or_late() -> None:
    world = World(batching=BatchingSettings(max_batch_size=4, max_queue_delay_ms=10.0))
    replica = world.replica()
    world.call()
    world.run()
    assert not replica.sent
    world.run(0.009)
    assert not replica.sent
    world.run(0.0011)
    assert sizes(replica) == [1]
    replica.answer()
    for _ in range(4):
        world.call()
    world.run()
    assert sizes(replica) == [1, 4], "a full batch does not wait"


def test_batching_that_does_not_pay_is_tried_again_now_and_then() -> None:
    world = World()
    world.deployment.learn([(rows, 0.010 * rows) for rows in (1, 8, 64)] * 20)
    replica = world.replica()
    assert world.deployment.decision.limit == 1
    for _ in range(450):
        world.call()
    world.run()
    while replica.batches:
        batch = replica.oldest()
        replica.answer(busy=0.010 * batch.rows)
    assert max(sizes(replica)) == 8
    assert sum(size > 1 for size in sizes(replica)) == 3


# --- in: admission ---


def test_admit_refuses_with_a_reason_and_counts() -> None:
    world = World(admission=AdmissionSettings(max_queue_rows=10))
    for _ in range(10):
        world.call()
    with pytest.raises(errors.Overloaded, match="queue full: 10 rows wait") as caught:
        world.deployment.admit(1, 8, world.clock(), world.clock() + 60)
    assert caught.value.retry_after is not None
    assert world.recorder.refusals == [("m", "1", Refusal.QUEUE_FULL)]
    assert world.deployment.refused_requests == 1


def test_admit_counts_the_rows_of_the_request_itself() -> None:
    world = World()
    world.replica()
    world.deployment.learn([(1, 0.2), (64, 0.2 + 63 * 0.01)] * 5)
    world.deployment.admit(1, 8, world.clock(), world.clock() + 0.5)
    with pytest.raises(errors.Overloaded, match="predicted to take"):
        world.deployment.admit(64, 512, world.clock(), world.clock() + 0.5)


def test_wrong_prediction_does_not_turn_everybody_away_for_ever() -> None:
    """A model that was slow for a while (a noisy neighbour) and is fast again: callers with short deadlines must get
    their answers again although the learned prediction is longer than every deadline."""
    world = World()
    world.deployment.learn([(1, 0.5)] * 50)
    replica = world.replica()
    served = 0
    for _ in range(150):
        now = world.clock()
        with contextlib.suppress(errors.Overloaded):
            world.deployment.admit(1, 8, now, now + 0.1)
            call = world.call(timeout=0.1)
            world.run()
            if replica.batches:
                replica.answer(busy=0.001)
            served += answered(call)
        world.run(0.2)
    assert served > 50, "within half a minute, or so"
    assert world.deployment.latency.predict(1) < 0.1


def test_prediction_is_believed_while_work_goes_on() -> None:
    world = World()
    replica = world.replica()
    world.deployment.learn([(1, 0.5)] * 50)
    world.call()
    world.run()
    assert replica.batches
    world.run(30.0)
    with pytest.raises(errors.Overloaded):
        world.deployment.admit(1, 8, world.clock(), world.clock() + 0.1)


# --- deadlines and callers that leave ---


def test_call_that_expired_while_it_waited_is_never_sent() -> None:
    world = World()
    replica = world.replica()
    world.call()
    world.run()
    late = world.call(timeout=1.0)
    world.run(2.0)
    assert error_of(late) is errors.DeadlineExceeded
    replica.answer()
    assert sizes(replica) == [1]
    assert world.deployment.queue.count == 0


def test_call_whose_caller_left_is_never_sent() -> None:
    world = World()
    replica = world.replica()
    world.call()
    world.run()
    left, stays = world.call(), world.call()
    assert isinstance(left.waiter, fakes.FakeWaiter)
    left.waiter.cancel()
    replica.answer()
    assert [calls for calls, *_ in replica.sent[1:]] == [[stays]]
    assert world.deployment.queue.abandoned == 1


def test_deadline_ends_a_call_that_is_being_computed_and_the_answer_is_ignored() -> None:
    world = World()
    replica = world.replica()
    call = world.call(timeout=1.0)
    world.run()
    world.run(1.5)
    assert error_of(call) is errors.DeadlineExceeded
    replica.answer()
    assert call.waiter.resolved == 1  # type: ignore[attr-defined]


def test_sweep_without_replicas_ends_calls_at_their_deadlines() -> None:
    world = World()
    calls = [world.call(timeout=t) for t in (0.1, 0.2, 0.3)]
    world.run(0.15)
    assert [c.waiter.done() for c in calls] == [True, False, False]
    world.run(0.1)
    world.run(0.1)
    assert {error_of(c) for c in calls} == {errors.DeadlineExceeded}


# --- errors where no caller listens ---


def test_batch_that_cannot_be_sent_ends_its_calls() -> None:
    world = World()
    replica = world.replica()
    replica.fail_next_submit = OverflowError("int too big")
    calls = [world.call(), world.call()]
    world.run()
    assert {error_of(c) for c in calls} == {errors.Bug}
    assert "int too big" in str(calls[0].error)
    after = world.call()
    world.run()
    replica.answer()
    assert answered(after)


def test_callers_of_a_finished_batch_get_their_answer_even_when_the_next_cannot_be_sent() -> None:
    world = World()
    replica = world.replica()
    first = world.call()
    world.run()
    second = world.call()
    replica.fail_next_submit = ValueError("broken")
    replica.answer()
    assert answered(first)
    assert error_of(second) is errors.Bug


def test_suspect_that_cannot_be_sent_ends() -> None:
    world = World()
    replica = world.replica()
    call = world.call()
    world.run()
    replica.die()
    other = fakes.FakeReplica(world.deployment, "r#9")
    other.fail_next_submit = ValueError("broken")
    world.deployment.add_replica(other)
    assert error_of(call) is errors.Bug
    after = world.call()
    world.run()
    other.answer()
    assert answered(after)


def test_calls_of_a_batch_that_a_replica_has_no_memory_for_run_alone_and_once() -> None:
    world = World()
    calls = [world.call() for _ in range(3)]
    replica = world.replica()
    world.run()
    assert sizes(replica) == [3]
    for call in calls:
        call.error = errors.OutOfMemory()
    replica.answer()
    assert not any(call.waiter.done() for call in calls)
    calls[0].error = errors.OutOfMemory()
    for _ in calls:
        assert len(replica.batches) == 1
        replica.answer()
    assert [(size, solo) for batch, _, _, solo in replica.sent for size in [len(batch)]] == [(3, False)] + [
        (1, True)
    ] * 3
    assert error_of(calls[0]) is errors.OutOfMemory
    assert all(answered(call) for call in calls[1:])


# --- deaths ---


def test_waiting_batch_goes_back_to_the_front_in_order() -> None:
    world = World(batching=BatchingSettings(max_batch_size=2))
    replica = world.replica()
    world.call()
    world.run()
    waiting = [world.call(), world.call()]
    world.run()
    later = world.call()
    assert sizes(replica) == [1, 2]
    replica.die(computing=0)
    other = world.replica()
    order = [c for calls, *_ in other.sent for c in calls]
    while other.batches:
        other.answer()
        order = [c for calls, *_ in other.sent for c in calls]
    assert order[1:] == [*waiting, later]
    assert all(c.deaths == 0 for c in order)


def test_computed_calls_are_rerun_one_at_a_time_and_only_the_culprit_fails() -> None:
    world = World()
    calls = [world.call() for _ in range(5)]
    culprit = calls[3]
    deaths = 0
    replica = world.replica()
    for _ in range(30):
        if not replica.batches:
            break
        batch = replica.oldest()
        if culprit in batch.calls:
            replica.die()
            deaths += 1
            replica = world.replica()
        else:
            replica.answer()
    assert deaths == 2
    assert error_of(culprit) is errors.PoisonRequest
    assert all(answered(c) for c in calls if c is not culprit)
    assert world.recorder.retries == 5


def test_suspects_run_alone_and_solo() -> None:
    world = World()
    calls = [world.call() for _ in range(4)]
    world.replica().die()
    replica = world.replica()
    for _ in range(4):
        (batch, limit, _, solo) = replica.sent[-1]
        assert (len(batch), limit, solo, len(replica.batches)) == (1, 1, True, 1)
        replica.answer()
    assert all(answered(c) for c in calls)


def test_suspects_get_a_replica_although_all_are_busy_under_load() -> None:
    """With a full queue every replica always holds a second batch: without setting one aside no suspect would run."""
    world = World(batching=BatchingSettings(max_batch_size=2))
    suspects = [world.call(), world.call()]
    dying = world.replica()
    busy = world.replica()
    for _ in range(200):
        world.call()
    world.run()
    assert len(busy.batches) == 2
    assert suspects[0] in dying.oldest().calls
    dying.die(computing=1)
    for _ in range(6):
        busy.answer()
    assert all(answered(c) for c in suspects)
    assert len(busy.batches) == 2, "afterwards the replica works for everybody again"


def test_replica_is_not_set_aside_for_ever_when_the_suspects_expire() -> None:
    world = World(batching=BatchingSettings(max_batch_size=2))
    suspect = world.call(timeout=1.0)
    dying = world.replica()
    busy = world.replica()
    for _ in range(10):
        world.call()
    world.run()
    dying.die(computing=1)
    assert len(busy.batches) == 2
    world.run(1.5)
    assert error_of(suspect) is errors.DeadlineExceeded
    while busy.batches:
        busy.answer()
    assert world.deployment.queue.count == 0
    assert world.deployment.idle


def test_suspects_of_a_concurrent_model_need_no_empty_replica() -> None:
    world = World(slots=Slots(SlotKind.CONCURRENT, 4))
    dying = world.replica()
    suspect = world.call()
    world.run()
    busy = world.replica()
    for _ in range(3):
        world.call()
    world.run()
    long_running = busy.oldest()
    dying.die(computing=len(dying.batches))
    assert any(suspect in calls for calls, *_ in busy.sent)
    busy.answer(next(b for b in busy.batches.values() if suspect in b.calls))
    assert answered(suspect)
    assert long_running.id in busy.batches


def test_suspect_that_only_waited_at_the_next_death_stays_suspect() -> None:
    world = World()
    suspect = world.call()
    world.run()
    world.replica().die()
    second = world.replica()
    assert second.sent[-1][3], "sent solo"
    # Another gateway's batch was running there: ours had not begun.
    second.die(computing=0)
    third = world.replica()
    calls, _, _, solo = third.sent[-1]
    assert (calls, solo, suspect.deaths) == ([suspect], True, 1)
    third.answer()
    assert answered(suspect)


def test_suspects_expire_at_their_deadline_while_another_one_is_tested() -> None:
    world = World()
    first, second = world.call(timeout=60.0), world.call(timeout=1.0)
    world.replica().die()
    replica = world.replica()
    assert replica.sent[-1][0] == [first]
    world.run(2.0)
    assert error_of(second) is errors.DeadlineExceeded
    replica.answer()
    assert answered(first)
    assert world.deployment.idle


def test_nothing_of_a_model_that_is_not_idempotent_is_rerun() -> None:
    world = World(idempotent=False, batching=BatchingSettings(max_batch_size=2))
    replica = world.replica()
    computed = world.call()
    world.run()
    waiting = [world.call(), world.call()]
    world.run()
    replica.die(computing=1)
    assert error_of(computed) is errors.ReplicaDied
    other = world.replica()
    assert [calls for calls, *_ in other.sent] == [waiting], "what had not begun may run elsewhere"
    assert not other.sent[0][2]


def test_retry_budget_bounds_reruns() -> None:
    world = World(batching=BatchingSettings(max_batch_size=1000, mode=BatchMode.ALWAYS))
    calls = [world.call() for _ in range(300)]
    world.replica().die()
    refused = [c for c in calls if c.waiter.done()]
    assert len(refused) == 300 - 256
    assert {error_of(c) for c in refused} == {errors.ReplicaDied}
    assert world.recorder.refusals == [("m", "1", Refusal.RETRY_BUDGET)] * 44
    assert world.recorder.retries == 256


def test_streams_of_a_dead_replica_end_and_their_slots_come_back() -> None:
    ended: list[errors.HeadraceError | None] = []

    class Sink:
        taken = 0

        def chunk(self, outputs: object) -> None: ...

        def ended(self, error: errors.HeadraceError | None, compute: float) -> None:
            ended.append(error)

    world = World(slots=Slots(SlotKind.CONCURRENT, 1))
    replica = world.replica()
    first, second = world.call(sink=Sink()), world.call(sink=Sink())
    world.run()
    assert first.waiter.done()
    assert not second.waiter.done()
    replica.die()
    assert isinstance(ended[0], errors.ReplicaDied)
    other = world.replica()
    assert second.waiter.done()
    other.end(second.stream)
    assert ended[1] is None


# --- the end of a deployment ---


def test_close_ends_everything_and_refuses_what_comes_later() -> None:
    """A slow client's request holds the deployment while its body is read; nobody sweeps a closed one."""
    world = World()
    replica = world.replica()
    waiting = world.call()
    world.deployment.close()
    assert replica.closed
    assert error_of(waiting) is errors.NotReady
    with pytest.raises(errors.NotReady, match="no longer deployed"):
        world.deployment.admit(1, 8, world.clock(), world.clock() + 60)


def test_close_ends_suspects() -> None:
    world = World()
    suspect = world.call()
    world.run()
    world.replica().die()
    world.deployment.close()
    assert error_of(suspect) is errors.NotReady


def test_waiting_calls_end_when_the_deployment_has_failed_for_good() -> None:
    world = World()
    replica = world.replica()
    waiting = world.call()
    replica.die()
    assert not waiting.waiter.done(), "a replica may come"
    route = fakes.deployment_route(replicas=(), failed=True, reason="it cannot be loaded")
    world.deployment.update(route, 1)
    assert error_of(waiting) is errors.NotReady
    with pytest.raises(errors.NotReady, match="it cannot be loaded"):
        world.deployment.admit(1, 8, world.clock(), world.clock() + 60)


def test_failed_deployment_with_a_ready_replica_that_connects_only_now_is_waited_for() -> None:
    world = World(failed=True, reason="the second replica cannot be loaded")
    world.deployment.admit(1, 8, world.clock(), world.clock() + 60)
    call = world.call()
    replica = world.replica()
    replica.answer()
    assert answered(call)


def test_signature_tells_why_nothing_has_loaded() -> None:
    world = World(signature=None, reason="no such file")
    with pytest.raises(errors.NotReady, match="no such file"):
        _ = world.deployment.signature
    world = World(signature=None)
    with pytest.raises(errors.NotReady, match="it is loading"):
        _ = world.deployment.signature


def test_ready_needs_a_replica_that_takes_work() -> None:
    world = World()
    assert not world.deployment.ready
    replica = world.replica()
    assert world.deployment.ready
    replica.draining = True
    assert not world.deployment.ready


def test_find_knows_connected_replicas_only() -> None:
    world = World()
    replica = world.replica()
    assert world.deployment.find(replica.id) is replica
    assert world.deployment.find("") is None
    replica.die()
    assert world.deployment.find(replica.id) is None


def test_state_of_replicas_in_the_route_decides_readiness_of_the_route() -> None:
    loading = fakes.deployment_route(replicas=(fakes.replica_route(state=ReplicaState.LOADING),))
    assert not loading.ready
    assert fakes.deployment_route().ready


def test_deployment_is_idle_only_without_waiting_suspect_and_running_calls() -> None:
    world = World()
    assert world.deployment.idle
    world.call()
    assert not world.deployment.idle
    replica = world.replica()
    assert not world.deployment.idle
    replica.die()
    assert not world.deployment.idle, "the suspect waits"
    world.replica().answer()
    assert world.deployment.idle
    assert isinstance(world.deployment, Deployment)


def test_alone_gateway_does_not_look_at_shared_pages() -> None:
    world = World(gateways=1)
    replica = world.replica()
    replica.shared = (world.clock(), 64)
    world.call()
    world.run()
    assert sizes(replica) == [1]


def test_calls_that_are_over_are_withdrawn_from_batches_that_wait() -> None:
    world = World(batching=BatchingSettings(max_batch_size=2))
    replica = world.replica()
    world.call()
    world.run()
    late, stays = world.call(timeout=0.05), world.call()
    world.run()
    assert sizes(replica) == [1, 2]
    world.run(0.06)
    assert error_of(late) is errors.DeadlineExceeded
    world.run(0.01)
    assert replica.withdrawn == {2: [0]}
    replica.answer()
    replica.answer()
    assert answered(stays)


# --- the end of the gateway ---


def test_shut_ends_what_waits_and_what_is_computed_with_one_error() -> None:
    world = World(batching=BatchingSettings(max_batch_size=1))
    replica = world.replica()
    computing = world.call()
    world.run()
    waiting = world.call()
    world.run()
    gone = errors.NotReady("the server is shutting down")
    world.deployment.shut(gone)
    assert computing.error is gone
    assert waiting.error is gone
    assert not replica.batches
    assert world.deployment.idle
    with pytest.raises(errors.NotReady, match="shutting down"):
        world.deployment.admit(1, 4, world.clock(), world.clock() + 1.0)
    piece = world.call()
    assert piece.error is gone, "a later piece of a large request"
    world.replica()
    assert not world.deployment.ready, "a replica that connects again is given nothing"


def test_shut_ends_who_waits_for_a_model_to_load() -> None:
    world = World(signature=None, lazy=True)
    gone = errors.NotReady("the server is shutting down")

    async def test() -> None:
        waiter = world.deployment.loaded()
        world.deployment.shut(gone)
        assert waiter.done()

    asyncio.run(test())
    with pytest.raises(errors.NotReady) as refused:
        _ = world.deployment.signature
    assert refused.value is gone
