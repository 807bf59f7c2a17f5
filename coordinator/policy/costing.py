"""What policies ask of the costs of a profile: predictions in seconds for loads, sequences and moves."""

from __future__ import annotations

from math import ceil, inf

from coordinator.policy.books import InstanceBook
from coordinator.policy.cost_model import CostModel
from coordinator.policy.work import Share, Work
from core.costs import chunk_shape

_QUEUED_STEPS = 0.5  # of prefill
_TEXT_STEPS = 0.25  # of prefill: text goes first, and where it is there comes more
_SHORT_ANSWER = 0.4  # of the usual length: what is shorter may miss its target where batches are full


class Costing:
    """Predictions over the cost model for what lies on instances."""

    def __init__(self, model: CostModel, tpot_s: float = inf) -> None:
        """`tpot_s`: the target per token."""
        self.model = model
        self._tpot_s = tpot_s
        self.profile = model.profile
        # One step's worth runs while the next one waits on the instance, so that the device never waits for
        # a dispatch; what is more stays with the coordinator, where it can still go elsewhere.
        self._chunk = chunk_shape(self.profile.chunk_tokens)
        self._chunk_s, self._chunk_version = model.step_s(self._chunk), model.version
        self.open_tokens = 2 * max(model.tipping_tokens(), self.profile.chunk_tokens)

    @property
    def chunk_s(self) -> float:
        """A full step of prefill, as the model has it now."""
        if self._chunk_version != self.model.version:
            self._chunk_s, self._chunk_version = self.model.step_s(self._chunk), self.model.version
        return self._chunk_s

    @property
    def most_queued_s(self) -> float:
        """Of device time that may wait on an instance behind what it works on."""
        return _QUEUED_STEPS * self.chunk_s

    @property
    def most_text_s(self) -> float:
        """Of device time that text may still take where media are begun."""
        return _TEXT_STEPS * self.chunk_s

    def prefill_stretch(self, sequences: int, context_tokens: int) -> float:
        """How many times longer a full prefill chunk takes beside so large a decode batch."""
        if sequences <= 0:
            return 1.0
        new, attended, _, _ = self._chunk
        costs = self.model.step_costs
        step_s = costs.seconds(new + sequences, attended + context_tokens, 1 + sequences, context_tokens)
        return step_s / self.chunk_s

    def backlog_s(self, load: Share) -> float:
        """Device time of the encodes and prefills of a load."""
        if not load.prefills:
            return load.encode_s
        return load.encode_s + load.prefill_s * self.prefill_stretch(load.decoding, load.context_tokens)

    def decode_step_s(self, sequences: float, context_tokens: float) -> float:
        """0 for an empty batch; averages may be fractions."""
        if sequences <= 0:
            return 0.0
        count, context = ceil(sequences), ceil(context_tokens)  # at least as large as the averages
        return self.model.step_costs.seconds(count, float(context), count, context)

    def full_step_s(self, sequences: float, context_tokens: float) -> float:
        """A step of a full prefill chunk beside so large a decode batch."""
        new, attended, _, _ = self._chunk
        count, context = ceil(sequences), ceil(context_tokens)
        return self.model.step_costs.seconds(new + count, attended + context, 1 + count, context)

    def promised_step_s(self, book: InstanceBook) -> float:
        """Per token, once all that was promised to the instance decodes, and one more.

        More sequences than its batch holds take turns: each waits for a place in it for about the same time
        per token of its answer as the others decode before it.
        """
        count, context = book.load.sequences + 1, book.load.kv_blocks * book.block_tokens
        most = book.max_sequences
        if most is None or count <= most:
            return self.model.step_costs.seconds(count, float(context), count, context)
        turns = count / most
        context = int(context / turns)
        return turns * self.model.step_costs.seconds(most, float(context), most, context)

    def is_crowded(self, book: InstanceBook) -> bool:
        """Whether one sequence more would make short answers miss the target per token, as they take turns.

        With n sequences for a batch of m, one waits n / m - 1 times the usual length of an answer, in steps,
        for its place; an answer of the share s of that length is in time while that is at most
        s * (target / step - 1).
        """
        most = book.max_sequences
        if most is None or book.load.sequences < most:
            return False
        turns = (book.load.sequences + 1) / most
        return turns - 1 > _SHORT_ANSWER * (self._tpot_s * turns / self.promised_step_s(book) - 1)

    def hand_over_s(self, work: Work, prefill_s: float) -> float:
        """KV follows the prefill layer by layer: what that does not hide, and the setup, come after it."""
        setup_s = self.profile.kv_move.setup_s
        return setup_s + max(0.0, self.model.kv_move_s(work.context_tokens) - setup_s - prefill_s)
