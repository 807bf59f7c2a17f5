"""The same trace in the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.elasticity.pace import Pace
from benchmarks.elasticity.playing import Stage, actors_of
from cli.load.outcomes import Outcome
from cli.targets import parse_slo
from coordinator.policy.scheduler import Slo
from core.lifecycle import RequestState
from core.profile import Profile
from core.profile_file import load_profile
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.result import RequestRecord
from simulator.schedulers import build_scheduler
from simulator.workload.request import Request

AS_PROFILED = Pace()


@dataclass(frozen=True, slots=True)
class Simulated:
    outcomes: tuple[Outcome, ...]
    num_switches: int


def as_sent(trace: Sequence[Request], played: Sequence[Outcome]) -> list[Request]:
    """The trace with prompts as long as the live cluster counted them, its template included."""
    counted = {each.index: each.prompt_tokens - each.media_tokens for each in played if each.is_ok}
    return [
        replace(each, text_tokens=counted.get(index, each.text_tokens)) for index, each in enumerate(trace)
    ]


@dataclass(frozen=True, slots=True)
class HostCosts:
    """What client, coordinator and messages add to the device's time, in seconds of the trace."""

    request_s: float  # to the first token of a lone request
    step_s: float  # to each further token


def host_costs(stage: Stage, warm_up: Sequence[Outcome], pace: Pace = AS_PROFILED) -> HostCosts:
    """Medians over requests that met an idle cluster, but for the first one: connections open with it."""
    profile = pace.of(_profile(stage))
    steps = [
        each.tpot_s - profile.step.decode_step_s(1, each.prompt_tokens + each.output_tokens // 2)
        for each in warm_up
        if each.tpot_s is not None
    ]
    step_s = max(0.0, median(steps)) if steps else 0.0
    firsts = [
        each.ttft_s - profile.prefill_s(each.prompt_tokens) - step_s
        for each in warm_up
        if each.kind == "text" and each.ttft_s is not None
    ]
    return HostCosts(max(0.0, median(firsts[1:])) if firsts[1:] else 0.0, step_s)


def simulate(
    stage: Stage, policy: str, trace: Sequence[Request], host: HostCosts, pace: Pace = AS_PROFILED
) -> Simulated:
    """To the end of the last request, with the devices of the stage at their own speed and its targets there.
    Needs a profile.

    Devices are as fast as `pace` says; policies reckon with the profile as it is, as the live ones do.
    A request reaches its instance `host.request_s` after the decision; a step takes `host.step_s` longer.
    """
    profile = _profile(stage)
    paced = pace.of(profile)
    paced = replace(paced, step=replace(paced.step, fixed_s=paced.step.fixed_s + host.step_s))
    config = ClusterConfig(
        stage.num_instances,
        paced,
        discipline="chunked" if actors_of(policy).prompt_order == "arrival" else "text-first",
        control_s=host.request_s,
        tpot_s=_slo(stage).tpot_s,
    )
    cluster = Cluster(config, build_scheduler(policy, (), profile, _slo(stage)), trace)
    result = cluster.run()
    cluster.check_idle()
    indices = {each.request_id: index for index, each in enumerate(trace)}
    outcomes = (outcome_of(each, indices) for each in result.records)
    return Simulated(tuple(outcomes), result.num_switches)


def _profile(stage: Stage) -> Profile:
    assert stage.profile is not None
    return load_profile(stage.profile)


def _slo(stage: Stage) -> Slo:
    assert stage.plan.slo is not None
    ttft_s, tpot_s, media_ttft_s = parse_slo(stage.plan.slo)
    by = stage.time_scale
    return Slo(ttft_s / by, tpot_s / by, None if media_ttft_s is None else media_ttft_s / by)


def outcome_of(record: RequestRecord, indices: Mapping[str, int]) -> Outcome:
    """`indices`: places in the trace, by request."""
    is_done = record.state is RequestState.FINISHED
    return Outcome(
        index=indices[record.request_id],
        kind="image" if record.has_media else "text",
        start_s=record.arrival_s,
        end_s=record.arrival_s if record.finished_s is None else record.finished_s,
        ttft_s=record.ttft_s,
        tpot_s=record.tpot_s,
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
        error=None if is_done else record.state.value,
    )
