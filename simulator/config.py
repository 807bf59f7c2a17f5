"""How a cluster is simulated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.encode_order import SLICE_S, EncodeOrder
from core.profile import Profile

Discipline = Literal["text-first", "chunked", "whole"]
# The live engine's, and "inline", which the simulator alone has.
Encoding = Literal["pipelined", "blocking", "inline"]


class SimulationError(RuntimeError):
    """The policies have brought the cluster to a stand."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The cluster; the defaults are those of the live system where it has the setting."""

    instances: int
    profile: Profile
    discipline: Discipline = "text-first"
    encoding: Encoding = "pipelined"
    encoder_cache: bool = False
    prefix_cache: bool = False
    switch_s: float = 0.1  # from telling an instance what to play until it says that it does
    control_s: float = 0.001  # from a decision until the instance has it
    tpot_s: float = 0.0  # the target per token that instances are told; 0.0: none
    encode_slice_s: float = SLICE_S
    media_workers: int = 2  # per instance, that decode pictures on the host
    default_output_tokens: int = 256  # expected until lengths are known
    stall_s: float = 3600.0  # waiting with nothing running for so long is an error

    @property
    def encode_order(self) -> EncodeOrder:
        return "shortest" if self.discipline == "text-first" else "arrival"
