"""The same device a little faster or slower: how much results depend on a profile's constants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.profile import Profile
from simulator.workload.spec import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Variant:
    """Factors on speeds; 1 is the profile as it is. `text_share` None: the workload's own."""

    name: str
    prefill_speed: float = 1.0  # arithmetic of a step
    encode_speed: float = 1.0
    bandwidth: float = 1.0  # of the device's memory and of its links
    text_share: float | None = None
    # Where it is run with fewer than the scenario's; empty: with those.
    seeds: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    rates_rps: tuple[float, ...] = ()

    def profile(self, profile: Profile) -> Profile:
        step = replace(
            profile.step,
            flops=profile.step.flops.scaled(1 / self.prefill_speed),
            bytes=profile.step.bytes.scaled(1 / self.bandwidth),
        )
        return replace(
            profile,
            step=step,
            encode=profile.encode.scaled(1 / self.encode_speed),
            kv_move=replace(profile.kv_move, bytes_per_s=profile.kv_move.bytes_per_s * self.bandwidth),
            embedding_move=replace(
                profile.embedding_move, bytes_per_s=profile.embedding_move.bytes_per_s * self.bandwidth
            ),
        )

    def workload(self, spec: WorkloadSpec) -> WorkloadSpec:
        if self.text_share is None or spec.mix is None:
            return spec
        return replace(spec, mix=replace(spec.mix, text_share=self.text_share))
