"""What a form of the cluster would give: time to first token and per output token under a demand."""

from __future__ import annotations

from collections.abc import Mapping
from math import log1p
from typing import NamedTuple

from coordinator.policy.costing import Costing
from coordinator.policy.demand import Demand, GroupDemand
from coordinator.policy.forms import Form, Forms, Pool, pool_of
from coordinator.policy.queueing import (
    MOST_LOAD,
    NO_FLOW,
    OVERLOAD_S,
    Flow,
    log_normal_within,
    lost_share,
    mixed_rate_s,
    mixed_turn_s,
    pooled,
    spread_90_s,
    wait_90_s,
)
from coordinator.policy.scheduler import Slo
from core.stages import ModalityGroup, Stage

_LATENCY_WEIGHT = 0.05
# Queues on instances are kept short, so that an overloaded pool is busy for so much of its time; two pools
# that feed each other for less. Both were read off simulations of forms offered more than they could do.
_BUSY = 0.88
_BUSY_APART = 0.75
_BUSY_ALONE = 0.85  # of that, where requests are so large that none may queue behind another
_MOST_KNOWN = 1024  # forms; a search looks at some tens
_WIDEST = 1.2  # the 90th percentile of the time per token, in means, where an engine is always at work
_ROUNDS = 3  # of batch size and step time, each of which follows from the other; they converge fast


class Latency(NamedTuple):
    """The 90th percentiles of one group; `lost` is the share that cannot be served in time in any order.

    Those whose own work takes longer than the target are part of it.
    """

    ttft_s: float
    tpot_s: float
    lost: float = 0.0


def missing(ratio: float) -> float:
    """The share of requests over the target, where the 90th percentile is `ratio` times the target.

    A smooth step, one half at the target, for predictions are not exact; the logarithm tells apart what
    misses by far, and what meets with ease.
    """
    steep = ratio**4
    return steep / (1 + steep) + _LATENCY_WEIGHT * log1p(ratio)


def over_tail(ratio: float) -> float:
    """The share over the target where the 90th percentile is `ratio` times it: a tenth at 1, half at 1.3."""
    steep = ratio**8
    return steep / (9 + steep)


_NEVER = Latency(1e6, 1e6)


class _Decode(NamedTuple):
    """Decode on a pool, one instance in the mean, and what it makes of latencies."""

    riding: float  # load by decodes in steps that prefill anyhow
    step_s: float  # of the batch alone
    turn_s: float  # of the engine: a token for every sequence
    tpot_s: float
    load: float  # of the places in batches, above 1 where answers outgrow them
    per_s: float  # sequences that all places could end

    @property
    def blocked_s(self) -> float:
        """A prompt waits so long for room, because answers outgrow the pool."""
        return max(0.0, self.load - 1) * OVERLOAD_S


class _Wait(NamedTuple):
    """For one pool: of a job in 90 of 100 cases, and how loaded what others leave of the pool is."""

    turn_s: float  # for what runs as it comes
    ahead_s: float  # of a larger job that goes first where all are busy
    busy_chance: float
    total_s: float
    load: float
    per_s: float  # jobs of the group that the pool could do
    deviation_s: float  # of its jobs' own time, which nobody knows beforehand
    servers: int

    def lost(self, patience_s: float, busy: float) -> float:
        """The share that waits longer, on a pool that is kept busy for so much of its time."""
        load = self.load / busy
        in_queue = lost_share(load, self.per_s * busy, patience_s)
        if load <= 1:
            in_queue = min(in_queue, self.busy_chance)
        behind = self.busy_chance * self._is_long(patience_s) if self.ahead_s else 0.0
        return 1 - (1 - in_queue) * (1 - behind)

    def _is_long(self, patience_s: float) -> float:
        """The chance that the larger job that is met has more than that to go.

        Of any server, or of the one that ends first: the dispatch knows what each has begun, not how far it
        is, and so meets something halfway between.
        """
        of_any = max(0.0, 1 - max(0.0, patience_s) / self.ahead_s)
        return (of_any + of_any**self.servers) / 2


class _Beside(NamedTuple):
    """What a busy turn has beside decodes, where a pool prefills."""

    factor: float  # with the encodes that belong to a full step
    most_s: float  # of encodes and prompts that are let in at a time; 0 where nothing is encoded


class _Known(NamedTuple):
    """What was predicted since the costs were last corrected: forms share pools, and searches share forms.

    A key holds the demands themselves, which are told apart by identity.
    """

    forms: dict[tuple[object, ...], dict[ModalityGroup, Latency]]
    decodes: dict[tuple[object, ...], _Decode]
    waits: dict[tuple[object, ...], _Wait]


class Predictor:
    """Predicts forms for one demand; see queueing.py for the estimates."""

    def __init__(self, costing: Costing, slo: Slo, *, late_yields: bool = False) -> None:
        """`late_yields`: who is late in any case lets others go first; an overload is not late as a whole."""
        self._costing = costing
        self._slo = slo
        self._late_yields = late_yields
        self._version = costing.model.version
        self._known = _Known({}, {}, {})

    def score(self, forms: Forms, demand: Demand) -> float:
        """About the share of requests that will miss a target, and a little for latency; less is better.

        Each group counts by its requests, so that where not all can be served in time, those who can are.
        """
        latencies = self.latencies(forms, demand)
        total = sum(demand[group].rate for group in latencies)
        score = 0.0
        for group, latency in latencies.items():
            score += self._missing(group, latency) * demand[group].rate / total
        return score

    def _missing(self, group: ModalityGroup, latency: Latency) -> float:
        target_s = self._slo.group_ttft_s(group)
        tpot = latency.tpot_s / self._slo.tpot_s
        if not self._late_yields:
            return missing(max(latency.ttft_s / target_s, tpot))
        lost = 1 - (1 - latency.lost) * (1 - over_tail(tpot))
        return lost + _LATENCY_WEIGHT * log1p(min(1.0, latency.ttft_s / target_s))

    def latencies(self, forms: Forms, demand: Demand) -> dict[ModalityGroup, Latency]:
        """Of every group with demand."""
        self._forget_outdated()
        present = {group: each for group, each in demand.items() if each.rate > 0}
        shared = forms.get(ModalityGroup.SHARED)
        if shared is not None:
            return self._of_form(shared, present)
        found: dict[ModalityGroup, Latency] = {}
        for group, each in present.items():
            form = forms.get(group)
            found |= {group: _NEVER} if form is None else self._of_form(form, {group: each})
        return found

    def _of_form(
        self, form: Form, demand: Mapping[ModalityGroup, GroupDemand]
    ) -> dict[ModalityGroup, Latency]:
        key = form, *demand.items()
        known = self._known.forms.get(key)
        if known is None:
            decode = self._decode(_need(form, Stage.DECODE), demand)
            first = {group: self._of_group(form, demand, group, decode) for group in demand}
            known = self._known.forms[key] = self._with_places(first, demand, decode)
        return known

    def _with_places(
        self,
        first: Mapping[ModalityGroup, Latency],
        demand: Mapping[ModalityGroup, GroupDemand],
        decode: _Decode,
    ) -> dict[ModalityGroup, Latency]:
        """Who is not lost before the first token needs a place in a decode batch, too."""
        tokens = {group: each.answers * each.output_tokens for group, each in demand.items()}
        passing = sum(tokens[group] * (1 - each.lost) for group, each in first.items())
        load = decode.load * passing / sum(tokens.values())
        found = {}
        for group, each in first.items():
            patience_s = self._slo.group_ttft_s(group) - demand[group].prefill_s - demand[group].encode_s
            lost = lost_share(load, decode.per_s, patience_s)
            found[group] = each._replace(lost=1 - (1 - each.lost) * (1 - lost))
        return found

    def _of_group(
        self,
        form: Form,
        demand: Mapping[ModalityGroup, GroupDemand],
        group: ModalityGroup,
        decode: _Decode,
    ) -> Latency:
        """A request waits for each pool that it comes to before its first token; their work is its own."""
        pool, own = _need(form, Stage.PREFILL), demand[group]
        waits, own_s = [self._wait(pool, demand, group, decode)], own.prefill_s
        if own.encode.rate > 0:
            encoders = _need(form, Stage.ENCODE)
            own_s += own.encode_s / max(1.0, min(own.items, encoders.size))
            if encoders is not pool:
                own_s += self._costing.model.embedding_move_s(int(own.prompt_tokens))
                waits.append(self._wait(encoders, demand, group, decode))
        turn_s = sum(wait.turn_s for wait in waits)
        ttft_s = own_s + sum(wait.total_s for wait in waits) + decode.blocked_s
        busy = _BUSY if len(waits) == 1 else _BUSY_APART
        if own.encode.rate > 0 and own_s + turn_s > self._slo.group_ttft_s(group) / 4:
            busy *= _BUSY_ALONE
        deviation_s = max(wait.deviation_s for wait in waits)
        lost = _lost(waits, busy, own_s, deviation_s, self._slo.group_ttft_s(group) - turn_s)
        return Latency(ttft_s, decode.tpot_s, lost)

    def _forget_outdated(self) -> None:
        if self._version != self._costing.model.version or len(self._known.forms) > _MOST_KNOWN:
            self._version = self._costing.model.version
            for known in self._known:
                known.clear()

    def _decode(self, pool: Pool, demand: Mapping[ModalityGroup, GroupDemand]) -> _Decode:
        key = pool, *demand.values()
        known = self._known.decodes.get(key)
        if known is None:
            known = self._known.decodes[key] = self._find_decode(pool, demand)
        return known

    def _find_decode(self, pool: Pool, demand: Mapping[ModalityGroup, GroupDemand]) -> _Decode:
        """By Little's law, a batch holds the sequences that come in during the time they stay."""
        rate = sum(each.answers for each in demand.values()) / pool.size
        outputs = sum(each.answers * each.output_tokens for each in demand.values()) / pool.size / rate
        context = sum(
            each.answers * each.output_tokens * (each.prompt_tokens + each.output_tokens / 2)
            for each in demand.values()
        ) / (outputs * rate * pool.size)
        profile = self._costing.profile
        most = max(1.0, min(profile.max_sequences, profile.kv_tokens / (context + outputs / 2)))
        others = self._interruptions(pool, demand)
        per_token_s = self._costing.model.step_costs.flops.per_new_token_s
        turn_s = self._costing.decode_step_s(1, context)
        beside = self._beside(pool, demand)
        for _ in range(_ROUNDS):
            batch = min(most, max(1.0, rate * outputs * turn_s))
            step_s = self._costing.decode_step_s(batch, batch * context)
            busy_s = self._busy_turn_s(beside, batch, context)
            most_s = mixed_rate_s(step_s, busy_s, min(_BUSY, others.work))
            turn_s = min(most_s, mixed_turn_s(step_s, batch * per_token_s, others, turn_s))
        load = rate * outputs * turn_s / most
        hand_over_s = 0.0 if Stage.PREFILL in pool.roles else profile.kv_move.setup_s
        tpot_s = min(_WIDEST * most_s, turn_s + spread_90_s(outputs * turn_s, others) / outputs)
        riding = rate * outputs * per_token_s
        per_s = pool.size * most / (outputs * turn_s)
        tpot_s += hand_over_s / outputs
        return _Decode(riding, step_s, turn_s, tpot_s, load, per_s)

    def _busy_turn_s(self, beside: _Beside | None, batch: float, context: float) -> float:
        """A full step and the encodes that belong to it, or what is there if that is less.

        A decode gains a token in every turn of the engine: no queue of prefills holds it up for longer.
        """
        if beside is None:
            return float("inf")
        full_s = self._costing.full_step_s(batch, batch * context)
        if not beside.most_s:
            return full_s
        return min(full_s * beside.factor, full_s - self._costing.chunk_s + beside.most_s)

    def _beside(self, pool: Pool, demand: Mapping[ModalityGroup, GroupDemand]) -> _Beside | None:
        """None where the pool does not prefill."""
        if Stage.PREFILL not in pool.roles:
            return None
        prefill = sum(each.prefill.work for each in demand.values())
        encode = sum(each.encode.work for each in demand.values()) if Stage.ENCODE in pool.roles else 0.0
        if not (prefill > 0 and encode > 0):
            return _Beside(1.0, 0.0)
        # What brings media is let in while half a step waits there; no turn has more than is there.
        chunk_s = self._costing.chunk_s
        parts = [each.encode_s + min(each.prefill.mean_s, chunk_s) for each in demand.values()]
        return _Beside(1 + encode / prefill, max(chunk_s / 2, *parts))

    def _interruptions(self, pool: Pool, demand: Mapping[ModalityGroup, GroupDemand]) -> Flow:
        """Encodes and prefills on one instance of the pool."""
        flow = NO_FLOW
        for each in demand.values():
            jobs = _jobs(pool, each)
            flow = flow.plus(jobs) if jobs.rate > 0 else flow
        return flow._replace(rate=flow.rate / pool.size)

    def _wait(
        self,
        pool: Pool,
        demand: Mapping[ModalityGroup, GroupDemand],
        group: ModalityGroup,
        decode: _Decode,
    ) -> _Wait:
        """`decode` follows from the pool where that decodes, and plays no part where it does not."""
        key = pool, group, *demand.items()
        known = self._known.waits.get(key)
        if known is None:
            known = self._known.waits[key] = self._find_wait(pool, demand, group, decode)
        return known

    def _find_wait(
        self,
        pool: Pool,
        demand: Mapping[ModalityGroup, GroupDemand],
        group: ModalityGroup,
        decode: _Decode,
    ) -> _Wait:
        """Until the pool begins with a job of the group. Turns are fair: who brings less work goes first.

        Where the pool decodes too, a job also waits for the turn at hand, and decodes ride along.
        """
        flows = {each: _jobs(pool, sizes) for each, sizes in demand.items()}
        total = NO_FLOW
        for flow in flows.values():
            total = total.plus(flow) if flow.rate > 0 else total
        is_mixed = Stage.DECODE in pool.roles
        riding, turn_s = (decode.riding, decode.step_s / 2) if is_mixed else (0.0, 0.0)
        queue = pooled(total, pool.size, riding)
        lighter = min(flows, key=lambda each: flows[each].work)
        light = flows[lighter].work / pool.size + riding
        if group is lighter:
            # The dispatch keeps one job queued on an instance that is busy, and that goes first there.
            ahead_s = max((flow.mean_s for each, flow in flows.items() if each is not group), default=0.0)
            before, load = riding, light
        else:
            ahead_s, before, load = 0.0, light, queue.load
        left = max(1 - before, 1 - MOST_LOAD)  # of each server, for the group
        own = flows[group]
        per_s = pool.size * left / own.mean_s if own.mean_s else 0.0
        total_s = turn_s + queue.wait_chance * ahead_s + wait_90_s(queue, before, load)
        own_load = own.work / pool.size / left
        return _Wait(turn_s, ahead_s, queue.wait_chance, total_s, own_load, per_s, own.deviation_s, pool.size)


def _lost(waits: list[_Wait], busy: float, own_s: float, deviation_s: float, most_s: float) -> float:
    """Of requests that are to begin early enough for their own work to end within `most_s`.

    Small ones have time to wait where large ones have none: each size is looked at apart.
    """
    fitting, sizes_s = log_normal_within(own_s, deviation_s, most_s)
    lost = [max(wait.lost(most_s - size_s, busy) for wait in waits) for size_s in sizes_s]
    return 1 - fitting * (1 - sum(lost) / len(lost))


def _jobs(pool: Pool, sizes: GroupDemand) -> Flow:
    """What one group brings to the pool besides decode; a request whose stages share a pool is one job."""
    prefill = sizes.prefill
    if Stage.ENCODE not in pool.roles:
        return prefill if Stage.PREFILL in pool.roles else NO_FLOW
    if Stage.PREFILL not in pool.roles or sizes.encode.rate <= 0:
        return sizes.encode if Stage.PREFILL not in pool.roles else prefill
    mean_s = prefill.mean_s + sizes.encode_s
    variance = sizes.encode.square_s2 - sizes.encode.mean_s**2
    square_s2 = prefill.square_s2 - prefill.mean_s**2 + sizes.items * max(0.0, variance) + mean_s**2
    return Flow(prefill.rate, mean_s, square_s2)


def _need(form: Form, stage: Stage) -> Pool:
    pool = pool_of(form, stage)
    assert pool is not None, f"a form without {stage.name}"
    return pool
