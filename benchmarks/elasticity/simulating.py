"""The same trace in the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.elasticity.playing import Stage
from benchmarks.load.outcomes import Outcome
from cli.slo import parse_slo
from coordinator.policy.scheduler import Slo
from core.lifecycle import RequestState
from core.profile_file import load_profile
from simulator.cluster import Cluster
from simulator.config import ClusterConfig
from simulator.result import RequestRecord
from simulator.schedulers import build_scheduler
from simulator.workload.request import Request


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


def host_s(stage: Stage, warm_up: Sequence[Outcome]) -> float:
    """What client, coordinator and messages add to the device's time for a lone request, as the trace counts.

    From text requests that met an idle cluster; the least, since the first ones also open connections.
    """
    assert stage.plan.profile is not None
    profile = load_profile(stage.plan.profile)
    added = [
        each.ttft_s - profile.prefill_s(each.prompt_tokens) / stage.time_scale
        for each in warm_up
        if each.kind == "text" and each.ttft_s is not None
    ]
    return max(0.0, min(added, default=0.0))


def simulate(stage: Stage, policy: str, trace: Sequence[Request], control_s: float = 0.001) -> Simulated:
    """To the end of the last request, with the devices and targets of the stage. Needs a profile there.

    `control_s` is the simulator's time from a decision until an instance has it.
    """
    assert stage.plan.profile is not None
    assert stage.plan.slo is not None
    profile, by = load_profile(stage.plan.profile), stage.time_scale
    config = ClusterConfig(stage.num_instances, profile, control_s=control_s * by)
    slow = [replace(each, arrival_s=each.arrival_s * by) for each in trace]
    cluster = Cluster(config, build_scheduler(policy, (), profile, Slo(*parse_slo(stage.plan.slo))), slow)
    result = cluster.run()
    cluster.check_idle()
    indices = {each.request_id: index for index, each in enumerate(trace)}
    outcomes = (_outcome(each, indices).sped_up(by) for each in result.records)
    return Simulated(tuple(outcomes), result.num_switches)


def _outcome(record: RequestRecord, indices: Mapping[str, int]) -> Outcome:
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
