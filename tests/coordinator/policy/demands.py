"""Demands for predictions: rates of text and of pictures, requests of one size each."""

from __future__ import annotations

from coordinator.policy.cost_model import CostModel
from coordinator.policy.demand import Demand, DemandMeter
from core.stages import ModalityGroup
from tests.coordinator.policy.cluster import PROFILE, pictures, text


def demand_of(texts: float, images: float, prompt: int = 200, output: int = 100) -> Demand:
    """At those rates (requests per second)."""
    meter = DemandMeter(CostModel(PROFILE))
    meter.note_arrival(text("t", prompt=prompt, output=output), 0.0)
    meter.note_arrival(pictures("m", output=output), 0.0)
    sizes, rates = meter.demand(0.0), {ModalityGroup.TEXT: texts, ModalityGroup.MULTIMODAL: images}
    return {group: sizes[group].at_rate(rate) for group, rate in rates.items() if rate > 0}
