"""Auto-scaling of decode and encode: grow where they hold things up, give back when that is over."""

from __future__ import annotations

from coordinator.policy.costing import Costing
from coordinator.policy.scheduler import Slo
from coordinator.policy.standing import Standing
from core.stages import Stage

_TIGHT = 0.5  # of the target per token: steps that take less need not be shorter


def decode_bottleneck(standing: Standing, costing: Costing, slo: Slo, fewer: int = 0) -> str | None:
    """Why decode needs more than it has (less `fewer`), in words; None where it suffices."""
    count = len(standing.players[Stage.DECODE]) - fewer
    if not standing.sequences and not standing.jobs:
        return None
    if count < 1:
        return "nobody decodes"
    if standing.blocks_short(-fewer):
        return "KV blocks are short"
    context = standing.context_tokens // max(1, standing.sequences)
    knee = costing.model.decode_knee(max(1, context))
    step_s = standing.step_s(count)
    if standing.sequences > knee * count and step_s > _TIGHT * slo.tpot_s:
        return f"the batch is past its knee of {knee}"
    if step_s > slo.tpot_s:
        return "steps take longer than the target"
    return None


def encode_bottleneck(standing: Standing, slo: Slo) -> str | None:
    """The predicted wait for an encoder counts where it is the longer one and eats up half the target."""
    wait_s = standing.wait_s(Stage.ENCODE)
    if wait_s > standing.wait_s(Stage.PREFILL) and wait_s > slo.group_ttft_s(standing.group) / 2:
        return f"media wait {wait_s:.2f} s for an encoder"
    return None
