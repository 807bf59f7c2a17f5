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
_APART_S = 10.0  # of requests that do not meet


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


def check_pictures(stage: Stage, trace: Sequence[Request], played: Sequence[Outcome]) -> None:
    """Raises ValueError where the model's folder makes other tokens of pictures than the profile does: then
    the two sides would not do the same work.
    """
    rule = _profile(stage).media
    for each in filter(lambda outcome: outcome.is_ok, played):
        pictures = trace[each.index].pictures
        expected = sum(rule.media_tokens(item.width_px, item.height_px) for item in pictures)
        if each.media_tokens != expected:
            raise ValueError(
                f"model: its processor makes {each.media_tokens} tokens of {pictures}, "
                f"the profile {stage.profile} {expected}; make_checkpoint makes one that fits"
            )


@dataclass(frozen=True, slots=True)
class HostCosts:
    """What client, coordinator and messages add to the device's time, in seconds of the trace."""

    request_s: float  # to the first token of a lone request
    step_s: float  # to each further token
    pictures_s: float = (
        0.0  # to the first token besides, where there are pictures: upload, fetching, hand-over
    )


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


def with_pictures(
    host: HostCosts, stage: Stage, policy: str, trace: Sequence[Request], warm_up: Sequence[Outcome]
) -> HostCosts:
    """As `host_costs`, of lone requests with pictures: what they took beyond the simulator's time. Right only
    where device and host worker take exactly the profile's time; else the profile's errors would go in, too.
    """
    lone = [each for each in warm_up if each.kind == "image" and each.ttft_s is not None][1:]
    asked = [
        replace(request, arrival_s=_APART_S * place)
        for place, request in enumerate(as_sent(trace, lone)[each.index] for each in lone)
    ]
    expected = {each.index: each.ttft_s for each in simulate(stage, policy, asked, host).outcomes}
    more = [
        each.ttft_s - ttft_s
        for place, each in enumerate(lone)
        if each.ttft_s is not None and (ttft_s := expected[place]) is not None
    ]
    return replace(host, pictures_s=max(0.0, median(more)) if more else 0.0)


def simulate(
    stage: Stage, policy: str, trace: Sequence[Request], host: HostCosts, pace: Pace = AS_PROFILED
) -> Simulated:
    """To the end of the last request, with the devices of the stage at their own speed and its targets there.
    Needs a profile.

    Devices are as fast as `pace` says; policies reckon with the profile as it is, as the live ones do.
    A request reaches its instance `host.request_s` after the decision; a step takes `host.step_s` longer.
    One with pictures reaches the coordinator `host.pictures_s` late.
    """
    sent = [_delayed(each, host.pictures_s) if each.pictures else each for each in trace]
    sent.sort(key=lambda each: each.arrival_s)
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
    cluster = Cluster(config, build_scheduler(policy, (), profile, _slo(stage)), sent)
    result = cluster.run()
    cluster.check_idle()
    indices = {each.request_id: index for index, each in enumerate(trace)}
    outcomes = (_as_asked(outcome_of(each, indices), trace) for each in result.records)
    return Simulated(tuple(outcomes), result.num_switches)


def _delayed(request: Request, by_s: float) -> Request:
    return replace(request, arrival_s=request.arrival_s + by_s)


def _as_asked(outcome: Outcome, trace: Sequence[Request]) -> Outcome:
    """Times from when the client began."""
    late_s = outcome.start_s - trace[outcome.index].arrival_s
    ttft_s = None if outcome.ttft_s is None else outcome.ttft_s + late_s
    return replace(outcome, start_s=outcome.start_s - late_s, ttft_s=ttft_s)


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
