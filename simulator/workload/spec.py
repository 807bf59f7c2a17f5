"""A workload as a scenario describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulator.workload.bursts import BurstSpec, with_burst
from simulator.workload.errors import WorkloadError, check
from simulator.workload.mix import MixSpec, mix
from simulator.workload.repeats import RepeatSpec, with_repeats
from simulator.workload.request import Request
from simulator.workload.trace import TraceSpec, compress, load, mean_rate_rps


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """Exactly one of mix and trace, and bursts over it, in seconds of the compressed time.

    `repeats` None: the same pictures come again only where the mix or the trace says so.
    """

    mix: MixSpec | None = None
    trace: TraceSpec | None = None
    bursts: tuple[BurstSpec, ...] = ()
    repeats: RepeatSpec | None = None

    def check(self) -> None:
        """Raises WorkloadError naming the key."""
        check((self.mix is None) != (self.trace is None), "mix", "there should be either mix or trace")
        parts = [("mix", self.mix), ("trace", self.trace), ("repeats", self.repeats)]
        parts += [(f"bursts[{at}]", burst) for at, burst in enumerate(self.bursts)]  # type: ignore[misc]
        for name, part in parts:
            if part is not None:
                try:
                    part.check()
                except WorkloadError as error:
                    raise WorkloadError(f"{name}.{error}") from None

    def sources(self) -> set[str]:
        """Names that requests may carry as their source."""
        names = {burst.pictures for burst in self.bursts if burst.kind == "images"}
        if self.mix is not None:
            shares = {"text": self.mix.text_share, self.mix.pictures: 1 - self.mix.text_share}
            return names | {name for name, share in shares.items() if share}
        text_only = self.trace is not None and self.trace.format in ("azure-llm", "mooncake")
        return names | ({"text"} if text_only else {"text", "image"})


class Workload:
    """Makes the requests of one seed at any mean rate; a trace is read once."""

    def __init__(self, spec: WorkloadSpec, folder: Path, seed: int) -> None:
        self._spec = spec
        self._seed = seed
        self._trace = None if spec.trace is None else load(spec.trace, folder, seed)

    def requests(self, rate_rps: float) -> list[Request]:
        """At that mean rate before bursts: a trace is compressed or stretched to it."""
        check(rate_rps > 0, "rate_rps", f"should be more than zero, is {rate_rps:g}")
        if self._trace is not None:
            requests = compress(self._trace, rate_rps / mean_rate_rps(self._trace))
        else:
            assert self._spec.mix is not None
            requests = mix(self._spec.mix, rate_rps, self._seed)
        for number, burst in enumerate(self._spec.bursts):
            requests = with_burst(requests, burst, rate_rps, self._seed, number)
        if self._spec.repeats is not None:
            requests = with_repeats(requests, self._spec.repeats, self._seed)
        check(bool(requests), "rate_rps", f"{rate_rps:g} gives no request in that time")
        return requests
