"""What arrives: rates and sizes of each group's requests, from the recent past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, inf
from types import MappingProxyType

from coordinator.policy.cost_model import CostModel
from coordinator.policy.forecast import MEAN_S, DecayedMean, Forecast
from coordinator.policy.plan import GROUPS
from coordinator.policy.queueing import NO_FLOW, Flow
from coordinator.policy.view import Placement
from coordinator.policy.work import Work, left_to_do_s
from core.costs import chunk_shape
from core.stages import ModalityGroup

_LONGEST_S = 60.0  # that what answers bring is averaged over
_LEAST = 50  # requests that averages are over
_KEEP = 1 - 1 / _LEAST  # of a request's part in them, at each that follows
_NONE: Mapping[ModalityGroup, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class GroupDemand:
    """Of one group, per second and per request.

    Two of them are the same only where they are one: predictions are remembered by it.
    """

    rate: float = 0.0  # requests a second
    prefill: Flow = NO_FLOW  # a job is a prompt, by what it adds to a step that runs anyhow
    prefill_s: float = 0.0  # of a prompt alone
    encode: Flow = NO_FLOW  # a job is a media item
    encode_s: float = 0.0  # of a request, all its items
    items: float = 0.0  # of a request
    prompt_tokens: float = 0.0
    output_tokens: float = 1.0
    staying: float = 1.0  # of the rate: what came in the mean over the time that an answer takes

    @property
    def answers(self) -> float:
        """A second, as batches of decodes see them, which take that time to fill."""
        return self.rate * self.staying

    def at_rate(self, rate: float) -> GroupDemand:
        """The same requests at another rate."""
        return GroupDemand(
            rate,
            self.prefill._replace(rate=rate),
            self.prefill_s,
            self.encode._replace(rate=rate * self.items),
            self.encode_s,
            self.items,
            self.prompt_tokens,
            self.output_tokens,
            self.staying,
        )


Demand = dict[ModalityGroup, GroupDemand]


class _Left:
    """Which part of the seconds of one stage caches leave to do, over about the last 50 dispatches."""

    def __init__(self) -> None:
        self._whole_s = self._saved_s = 0.0

    def note(self, whole_s: float, left_s: float) -> None:
        self._whole_s = self._whole_s * _KEEP + whole_s
        self._saved_s = self._saved_s * _KEEP + whole_s - left_s

    @property
    def share(self) -> float:
        """Exactly 1 where nothing was saved."""
        return max(0.0, 1.0 - self._saved_s / self._whole_s) if self._saved_s > 0 else 1.0


class _Meter:
    """One group: work by its forecast, sizes averaged over about the last 50 requests, or as long as the
    forecast's mean where more come: of 50 the mean swings, and forms with it.
    """

    def __init__(self) -> None:
        self.forecast = Forecast()
        self._of_answers = DecayedMean()  # of the same work, over the time that they take
        self.prefill_left, self.encode_left = _Left(), _Left()
        self.weight = 0.0
        self._sums = [0.0] * 10
        self._outputs = self._took_s = 0.0
        self._num_ended = 0.0
        self._at_s = -inf  # of the last request

    def add(self, work: Work, added_s: float, decode_s: float, alone_s: float, now_s: float) -> None:
        """`added_s`: of its prefill, to a step that runs anyhow; `alone_s`: of its answer by itself.

        Caches are taken to spare the share that they spared lately: prompts get shorter, and items fewer.
        """
        prefill_left, encode_left = self.prefill_left.share, self.encode_left.share
        added_s *= prefill_left
        encode_s = work.encode_s * encode_left
        work_s = encode_s + added_s + decode_s
        self.forecast.note(work_s, now_s)
        self._of_answers.note(work_s, now_s)
        news = (
            work_s,
            work.prefill_s * prefill_left,
            added_s,
            added_s**2,
            len(work.media) * encode_left,
            encode_s,
            sum([item.encode_s**2 for item in work.media]) * encode_left,
            work.prompt_tokens,
            work.reserve_tokens,
            alone_s,
        )
        keep = max(_KEEP, exp(min(0.0, self._at_s - now_s) / MEAN_S))
        self._at_s = now_s
        self.weight = self.weight * keep + 1
        self._sums = [have * keep + new for have, new in zip(self._sums, news, strict=True)]

    def ended(self, num_outputs: int, took_s: float) -> None:
        """As many answers are remembered as requests. `took_s`: from an answer's first token to its last."""
        keep = 1 - 1 / max(_LEAST, self.weight)
        self._outputs = self._outputs * keep + num_outputs
        self._took_s = self._took_s * keep + took_s
        self._num_ended = self._num_ended * keep + 1

    def staying(self, now_s: float) -> float:
        """Of the demand. A burst that is over before its first answers end fills no batch, and there is time
        to act while one fills: none need be kept ready as for what may come at once.
        """
        self._of_answers.average_over(min(_LONGEST_S, max(MEAN_S, self.answer_s)))
        whole = self.forecast.demand(now_s)
        return min(1.0, self._of_answers.at(now_s) / whole) if whole > 0 else 1.0

    @property
    def answer_s(self) -> float:
        """From an answer's first token to its last: of those that ended, else what it takes one alone."""
        return self._took_s / self._num_ended if self._num_ended else self._sums[-1] / self.weight

    def sizes(self) -> GroupDemand | None:
        """At one request per second; None before the first."""
        if not self.weight:
            return None
        _, prefill_s, added_s, added_s2, items, encode_s, encode_s2, prompt, *_ = (
            total / self.weight for total in self._sums
        )
        encode = Flow(items, encode_s / items, encode_s2 / items) if items else NO_FLOW
        prefill = Flow(1.0, added_s, added_s2)
        return GroupDemand(1.0, prefill, prefill_s, encode, encode_s, items, prompt, self.output_tokens)

    @property
    def output_tokens(self) -> float:
        """Of an answer: those that ended, else what was expected of those that came."""
        outputs = self._outputs / self._num_ended if self._num_ended else self._sums[-2] / self.weight
        return max(1.0, outputs)

    @property
    def work_s(self) -> float:
        """Instance-seconds of a request."""
        return self._sums[0] / self.weight if self.weight else 0.0


class DemandMeter:
    """Fed with every arrival, dispatch and end; says what to be ready for."""

    def __init__(self, model: CostModel) -> None:
        self._model = model
        self._meters = {group: _Meter() for group in GROUPS}

    def note_arrival(self, work: Work, now_s: float) -> None:
        added_s = self._added_prefill_s(work)
        decode_s = self._model.decode_work_s(work.reserve_tokens, work.prompt_tokens)
        alone_s = work.reserve_tokens * self._model.step_costs.decode_step_s(1, work.prompt_tokens)
        self._meters[work.group].add(work, added_s, decode_s, alone_s, now_s)

    def note_dispatch(self, work: Work, placement: Placement) -> None:
        meter = self._meters[work.group]
        prefill_s, encode_s = left_to_do_s(work, placement)
        meter.prefill_left.note(work.prefill_s, prefill_s)
        meter.encode_left.note(work.encode_s, encode_s)

    def note_finished(self, work: Work, tpot_s: float) -> None:
        self._meters[work.group].ended(work.num_outputs, work.num_outputs * tpot_s)

    def _added_prefill_s(self, work: Work) -> float:
        """Under load prompts share steps: each adds its arithmetic, weights are read for others anyhow."""
        flops = self._model.step_costs.flops
        return min(work.prefill_s, flops.seconds(chunk_shape(work.prompt_tokens)))

    def output_tokens(self, group: ModalityGroup) -> float:
        """Of an answer in the mean; of all groups for SHARED, 1 before the first request."""
        known = [
            (meter.weight, meter.output_tokens)
            for each, meter in self._meters.items()
            if group in (each, ModalityGroup.SHARED) and meter.weight
        ]
        total = sum(weight for weight, _ in known)
        return sum(weight * tokens for weight, tokens in known) / total if total else 1.0

    def work(self, group: ModalityGroup, now_s: float) -> float:
        """Instance-seconds per second of the group to be ready for."""
        return self._meters[group].forecast.demand(now_s)

    def demand(self, now_s: float, backlog: Mapping[ModalityGroup, float] = _NONE) -> Demand:
        """Of every group that has had requests; `backlog` (requests per second) comes on top."""
        demand: Demand = {}
        for group, meter in self._meters.items():
            sizes = meter.sizes()
            if sizes is not None:
                rate = meter.forecast.demand(now_s) / meter.work_s
                demand[group] = replace(
                    sizes.at_rate(rate + backlog.get(group, 0.0)), staying=meter.staying(now_s)
                )
        return demand
