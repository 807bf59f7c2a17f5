"""A request's time as steps, and the steps as bars of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elasticmm_client.events import StageSpan
from elasticmm_client.recent import RequestTrace

WIDTH = 50


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the request's time, in milliseconds since its arrival. Parts may overlap."""

    name: str  # "prepare", "queue", "encode", "transfer", "prefill", "first token" or "decode"
    start_ms: float
    end_ms: float
    instance: str = ""
    transport: str = ""  # how the result went on

    @property
    def took_ms(self) -> float:
        return self.end_ms - self.start_ms


def steps_of(trace: RequestTrace) -> tuple[Step, ...]:
    """In order of start. The wait for what has not happened lasts until now."""
    found = [Step("prepare", 0.0, trace.queued_ms)] if trace.num_dispatches < 2 else []
    waited_ms = _now_ms(trace) if trace.dispatched_ms is None else trace.dispatched_ms
    found.append(Step("queue", trace.queued_ms, waited_ms))
    found += [
        Step(each.stage, each.start_ms, each.end_ms, each.instance, each.transport) for each in trace.stages
    ]
    found += _transfers(trace.stages)
    if trace.first_token_ms is not None:
        found.append(Step("first token", trace.first_token_ms, trace.first_token_ms))
    return tuple(sorted(found, key=lambda step: step.start_ms))


def bars(trace: RequestTrace, width: int = WIDTH) -> Iterator[str]:
    """A line each: name, instance, bar, start and length in milliseconds, transport."""
    steps = steps_of(trace)
    whole_ms = max(_now_ms(trace), *(step.end_ms for step in steps))
    names = [f"{step.name} {step.instance}".rstrip() for step in steps]
    room = max(map(len, names))
    for name, step in zip(names, steps, strict=True):
        bar = _bar(step, whole_ms, width)
        times = f"{step.start_ms:9.1f}  {step.took_ms:9.1f} ms"
        yield f"{name:<{room}}  |{bar}|  {times}  {step.transport}".rstrip()


def _now_ms(trace: RequestTrace) -> float:
    return trace.age_s * 1e3 if trace.end_ms is None else trace.end_ms


def _transfers(stages: Sequence[StageSpan]) -> Iterator[Step]:
    """From the end of a stage to the start of the one that waited for its result, elsewhere.

    What went over while the stage computed is hidden in it.
    """
    for before, after in (("encode", "prefill"), ("prefill", "decode")):
        ends = [span for span in stages if span.stage == before and span.transport not in ("", "local")]
        starts = [span for span in stages if span.stage == after]
        if not ends or not starts:
            continue
        last, first = max(ends, key=lambda span: span.end_ms), starts[0]
        if first.start_ms > last.end_ms:
            yield Step(
                "transfer", last.end_ms, first.start_ms, f"{last.instance}>{first.instance}", last.transport
            )


def _bar(step: Step, whole_ms: float, width: int) -> str:
    """At least one mark, however short the step."""
    scale = width / whole_ms if whole_ms > 0 else 0.0
    first = min(max(0, int(step.start_ms * scale)), width - 1)
    length = max(1, min(round(step.took_ms * scale), width - first))
    mark = "^" if step.name == "first token" else "#"
    return (" " * first + mark * length).ljust(width)
