"""Who starts next, and where: the policies, on simulated engines."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.engine.protocol import Speed
from parrot_nb.graph import Applications
from parrot_nb.language.nodes import LATENCY, THROUGHPUT
from parrot_nb.runtime.costs import Size
from parrot_nb.runtime.fleet import Fleet, Slot
from parrot_nb.runtime.policies import POLICIES, make_policy
from parrot_nb.runtime.recorded import recorded
from parrot_nb.runtime.scheduler import FAIR_EVERY, Scheduler
from parrot_nb.runtime.simulate import Application, simulate
from parrot_nb.runtime.simulated import EngineSpec
from parrot_nb.runtime.synthetic import chain, chat, chats, gpts, job, map_reduce, multi_agent

# A real engine's decode steps: vLLM 0.30 with Qwen3-8B on an H100 writes 146, 2,117, 6,597 and 13,567 tokens a second for 1,
# 16, 64 and 256 users. Prompts: 16 GFLOP a token at 400 TFLOP/s.
REAL = EngineSpec(Speed(6.8e-3, 4.7e-5, 4e-5))


class Sizes:
    def size(self, call):
        return Size(100, 10)

    def prefixes(self, call):
        return []


def scheduler(policy: str, num_engines: int = 1, max_open: int | None = None) -> Scheduler:
    fleet = Fleet([Slot("m", i) for i in range(num_engines)])
    made = make_policy(policy, Applications())
    if max_open is not None:
        made.max_open = max_open
    return Scheduler(made, Sizes(), lambda _: fleet, lambda _: "m")


def a_call(objective=THROUGHPUT, name="f"):
    call = job(name, [(None, 10)], 5).call
    call.objective = objective
    return call


# Order


def test_what_readers_wait_for_goes_first():
    one = scheduler("parrot", max_open=1)
    slow, fast = a_call(), a_call(LATENCY)
    one.add(slow)
    one.add(fast)
    assert one.next()[0] is fast
    assert one.next() is None, "the engine is full"
    one.ended(fast)
    assert one.next()[0] is slow


def test_what_is_discarded_never_starts_and_what_is_raised_goes_forward():
    one = scheduler("parrot")
    calls = [a_call() for _ in range(4)]
    for call in calls:
        one.add(call)
    one.discard(calls[0])
    calls[3].objective = LATENCY
    one.raised(calls[3])
    one.raised(calls[0])
    assert [one.next()[0] for _ in range(3)] == [calls[3], calls[1], calls[2]]
    assert one.next() is None
    assert len(one) == 0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 30))
def test_nobody_starves(urgent, num_before):
    """However many urgent calls come in, a call before which k others wait starts within FAIR_EVERY * (k + 1) starts."""
    one = scheduler("parrot", max_open=1)
    before = [a_call() for _ in range(num_before)]
    patient = a_call()
    for call in (*before, patient):
        one.add(call)
    flood = itertools.chain(urgent, itertools.repeat(True))
    for num_starts in itertools.count(1):
        if next(flood):
            one.add(a_call(LATENCY))
        call, _ = one.next()
        one.ended(call)
        if call is patient:
            break
        assert num_starts < FAIR_EVERY * (num_before + 1)


def test_the_application_that_is_nearly_done_goes_first():
    """Though it was made last: it holds up the other one for a short time only."""
    spec = EngineSpec(Speed(1e-3, 1e-4, 1e-3), max_step_tokens=64)
    runs = {policy: simulate([chain(10), chain(2)], [spec], policy) for policy in ("parrot", "fifo")}
    long, short = (runs["parrot"].applications[i][1] / runs["fifo"].applications[i][1] for i in (0, 1))
    assert short < 0.9
    assert long < 1.1


def test_the_critical_path_goes_first():
    """Of two inputs that are wanted together the one with the longer way is begun first, though it was made last."""
    short = job("short", [(None, 1000)], 10)
    first = job("first", [(None, 1000)], 10)
    second = job("second", [(None, 1000)], 10, first.call.outputs)
    end = job("end", [(None, 10)], 5, [*short.call.outputs, *second.call.outputs])
    app = Application("diamond", (short, first, second, end), end.call.outputs)
    report = simulate([app], [EngineSpec(Speed(1e-3, 1e-4, 1e-3), max_step_tokens=1000)], "parrot")
    assert report.calls[first.call.id].first_s < report.calls[short.call.id].first_s


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_runs_everything_once(policy):
    apps = [chain(4), map_reduce(7, at_s=0.2), multi_agent(3, at_s=0.1), *chats(5, 0.1), *gpts(5, 0.1)]
    for engines in (1, 3, 20):
        report = simulate([*apps], engines, policy)
        assert all(seconds is not None and seconds > 0 for _, seconds in report.applications)
        assert report.decoded_tokens == sum(job.output_tokens for app in apps for job in app.jobs)
        apps = [chain(4), map_reduce(7, at_s=0.2), multi_agent(3, at_s=0.1), *chats(5, 0.1), *gpts(5, 0.1)]


def test_a_policy_that_does_not_exist():
    with pytest.raises(P.SessionError, match="no scheduling policy 'lifo': choose from parrot, fifo"):
        simulate([chain()], policy="lifo")
    with pytest.raises(P.SessionError, match="no scheduling policy 'lifo'"):
        P.Session(policy="lifo")


# Engines


def test_a_task_group_stays_together():
    """Its shared prompt is then computed once; two groups go to an engine each."""

    def group(name: str) -> Application:
        jobs = [job(name, [(name, 4000), (None, 20)], 20) for _ in range(6)]
        outputs = tuple(j.call.outputs[0] for j in jobs)
        end = job("end", [("end", 10)], 5, outputs)
        return Application(name, (*jobs, end), end.call.outputs)

    report = simulate([group("a"), group("b")], [REAL] * 4, "parrot")
    engines = {name: {r.engine for r in report.calls.values() if r.function == name} for name in "ab"}
    assert len(engines["a"]) == len(engines["b"]) == 1
    assert engines["a"] != engines["b"]
    assert report.prefilled_tokens < 2 * 4000 + 1000


def test_a_group_too_large_for_an_engine_spreads():
    spread = simulate([map_reduce(200)], [REAL] * 4, "parrot")
    used = [sum(r.engine == i for r in spread.calls.values()) for i in range(4)]
    assert min(used) > 20
    one = simulate([map_reduce(200)], [REAL], "parrot")
    assert spread.mean_s("map_reduce") < one.mean_s("map_reduce") / 2.5


def test_who_shares_a_prompt_goes_where_it_is_cached():
    report = simulate(gpts(40, every_s=0.5, seed=3), [REAL] * 4, "parrot")
    spread = simulate(gpts(40, every_s=0.5, seed=3), [REAL] * 4, "fifo")
    assert report.prefilled_tokens < spread.prefilled_tokens
    assert report.mean_s("gpts") < 1.05 * spread.mean_s("gpts")


def test_an_engine_that_dies_gives_its_calls_to_the_others():
    specs = [EngineSpec(REAL.speed, dies_at_s=0.05), REAL]
    report = simulate([map_reduce(60), chain(5)], specs, "fifo")
    moved = [record for record in report.calls.values() if record.num_moves]
    assert moved
    assert all(record.engine == 1 for record in moved)
    failed = [record for record in report.calls.values() if record.failed]
    done = dict(report.applications)
    assert all(record.end_s is not None for record in report.calls.values())
    assert (done["map_reduce"] is None) == any(record.application == 0 for record in failed)
    alone = simulate([chain(5)], [EngineSpec(REAL.speed, dies_at_s=0.05)], "parrot")
    assert alone.applications == [("chain", None)], "nobody is left to take over: it fails, and is not waited for"


# Targets


def mixed(perf=LATENCY):
    """Nine map-reduce applications beside chats that come at random (paper, figure 19)."""
    return [*[map_reduce(30, at_s=i * 0.5) for i in range(9)], *chats(30, 0.2, perf=perf)]


def test_chats_and_map_reduce_side_by_side():
    """Near the better of the two centric policies in both, which neither of them is."""
    latency = simulate(mixed(), [REAL] * 4, "latency-centric", whole=False)
    throughput = simulate(mixed(), [REAL] * 4, "throughput-centric", whole=False)
    parrot = simulate(mixed(), [REAL] * 4, "parrot")
    tpot = {r.policy: statistics.fmean(r.tpot_s("chat")) for r in (latency, throughput, parrot)}
    reduce_s = {r.policy: r.mean_s("map_reduce") for r in (latency, throughput, parrot)}
    assert tpot["parrot"] < 1.2 * tpot["latency-centric"]
    assert reduce_s["parrot"] < 1.1 * reduce_s["throughput-centric"]
    assert tpot["throughput-centric"] > 1.2 * tpot["latency-centric"]
    assert reduce_s["latency-centric"] > 1.1 * reduce_s["throughput-centric"]


def test_a_target_is_kept_while_others_go_on():
    target = 9.5e-3
    report = simulate(mixed(P.latency(tpot=target)), [REAL] * 4, "parrot")
    times = sorted(report.tpot_s("chat"))
    assert times[int(0.95 * len(times))] <= target * 1.001
    assert all(seconds is not None for _, seconds in report.applications)


def test_a_target_that_cannot_be_kept_starves_nobody():
    apps = [map_reduce(10), *[chat(output_tokens=400, at_s=i * 0.05, perf=P.latency(tpot=1e-4)) for i in range(20)]]
    report = simulate(apps, [REAL], "parrot")
    assert all(seconds is not None for _, seconds in report.applications)
    last_chat = max(record.end_s for record in report.calls.values() if record.function == "chat")
    first_part = min(record.first_s for record in report.calls.values() if record.function == "summarize")
    assert first_part < last_chat, "the others had some of every step"


# Size


def test_a_fleet_of_a_thousand_engines():
    report = simulate([map_reduce(99, at_s=i * 0.01) for i in range(150)], [REAL] * 1000, "parrot")
    assert len(report.calls) == 15_000
    assert all(seconds is not None for _, seconds in report.applications)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_time_adds_up(data):
    """Whatever runs, an engine is never busier than time passes, and nothing ends before all of it could have been computed."""
    apps = data.draw(
        st.lists(
            st.builds(map_reduce, st.integers(1, 12), at_s=st.floats(0, 1)) | st.builds(chain, st.integers(1, 5)),
            min_size=1,
            max_size=4,
        )
    )
    num_engines = data.draw(st.integers(1, 5))
    policy = data.draw(st.sampled_from(list(POLICIES)))
    report = simulate(apps, [REAL] * num_engines, policy, shares=False)
    assert all(share <= 1 + 1e-9 for share in report.busy)
    speed = REAL.speed
    for app, (_, seconds) in zip(apps, report.applications, strict=True):
        last = app.jobs[-1]
        least = last.prefixes[-1][1] * speed.prefill_s + last.output_tokens * speed.base_s
        assert seconds >= least - 1e-9
    work_s = sum(job.prefixes[-1][1] for app in apps for job in app.jobs) * speed.prefill_s
    assert sum(report.busy) * report.total_s >= work_s - 1e-9


# What was recorded


def test_a_session_can_be_run_again_elsewhere(session):
    f = P.SemanticFunction("Part {{input:x}}: {{output:y}}", name="part")
    end = P.SemanticFunction("All of {{input:xs}}: {{output:y}}", name="whole")
    result = end(f.map([f"p{i}" for i in range(6)]))
    alone = f("alone")
    P.gather(result, alone).get(timeout=30)
    decoded = sum(node.usage.decoded_tokens for node in session.variables())
    (first, second) = recorded(session.calls(), session.events)
    assert (first.name, second.name) == ("whole", "part")
    assert sum(job.output_tokens for job in first.jobs) + sum(job.output_tokens for job in second.jobs) == decoded
    report = simulate([first, second], [REAL] * 2, "parrot")
    assert report.decoded_tokens == decoded
    assert all(seconds is not None for _, seconds in report.applications)
    groups = {job.call.group for job in first.jobs if job.call.name == "part"}
    assert len(groups) == 1
    assert next(iter(groups)) is not None, "what is deduced of them is deduced anew"


def test_nothing_was_recorded(session):
    with pytest.raises(P.UsageError, match="Nothing has run in this session yet"):
        recorded(session.calls(), session.events)


def test_applications_are_run_once():
    apps = [chain(2)]
    simulate(apps)
    with pytest.raises(P.UsageError, match="was run before: make the applications anew"):
        simulate(apps)
    with pytest.raises(P.UsageError, match="at least one engine"):
        simulate([chain(2)], 0)
