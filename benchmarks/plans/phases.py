"""Parts of a run in which a plan in hindsight stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.profile import Profile
from simulator.workload.request import Request
from simulator.workload.spec import WorkloadSpec

WINDOWS = 12  # of a trace that no bursts are laid over


@dataclass(frozen=True, slots=True)
class Phase:
    """From `start_s` to the next one's; `is_burst`: more work arrives than usual."""

    start_s: float
    is_burst: bool


def phases_of(spec: WorkloadSpec, requests: Sequence[Request], profile: Profile) -> tuple[Phase, ...]:
    """Between the beginnings and ends of bursts; a trace without them in equal windows, where one with more
    than the mean work counts as a burst; a steady mix as one phase.

    As many for every rate, so that a schedule can be tried at another.
    """
    if spec.bursts:
        return _between_bursts(spec)
    return _windows(requests, profile) if spec.trace is not None else (Phase(0.0, False),)


def requests_of(phases: Sequence[Phase], index: int, requests: Sequence[Request]) -> list[Request]:
    """Those that arrive in the phase of that index."""
    start_s = phases[index].start_s
    end_s = phases[index + 1].start_s if index + 1 < len(phases) else float("inf")
    return [each for each in requests if start_s <= each.arrival_s < end_s]


def _between_bursts(spec: WorkloadSpec) -> tuple[Phase, ...]:
    spans = [(burst.start_s, burst.start_s + burst.duration_s) for burst in spec.bursts]
    edges = sorted({0.0, *(edge for span in spans for edge in span)})
    return tuple(Phase(edge, any(start_s <= edge < end_s for start_s, end_s in spans)) for edge in edges)


def _windows(requests: Sequence[Request], profile: Profile) -> tuple[Phase, ...]:
    end_s = requests[-1].arrival_s
    phases = tuple(Phase(end_s * number / WINDOWS, False) for number in range(WINDOWS))
    work = [
        sum(_device_s(each, profile) for each in requests_of(phases, index, requests))
        for index in range(WINDOWS)
    ]
    mean = sum(work) / WINDOWS
    return tuple(Phase(phase.start_s, each > mean) for phase, each in zip(phases, work, strict=True))


def _device_s(request: Request, profile: Profile) -> float:
    """Of its encodes and its prefill."""
    sizes = [
        each.num_tokens or profile.media.media_tokens(each.width_px, each.height_px)
        for each in request.pictures
    ]
    encode_s = sum(profile.encode.encode_s(size) for size in sizes)
    return encode_s + profile.prefill_s(request.text_tokens, sum(sizes))
