"""The engine of the coupled servers of the paper's day: prompts whole and first, decodes wait."""

from __future__ import annotations

from core.costs import StepShape
from simulator.instance import Instance
from simulator.job import Job

MOST_PROMPT_TOKENS = 8192  # of one pass; a longer prompt has a pass of its own


class WholeInstance(Instance):
    """Every turn is either one pass over whole prompts, their pictures encoded in it, or a decode run.

    Waiting prompts go first, in order of arrival, so that all decodes stand still for the pass.
    """

    def _select(self, is_short: bool) -> list[tuple[Job, int]]:
        chunks = self._chunks = []
        budget = MOST_PROMPT_TOKENS
        for job in self.prefills:
            if job.preprocessed < len(job.work.media):
                continue
            size = job.target_tokens - job.computed
            if (
                is_short
                or (chunks and size > budget)
                or not (job.blocks or self._admit(job, self.batch.size))
            ):
                break
            chunks.append((job, size))
            budget -= size
        return chunks

    def _start_step(self) -> None:
        self._has_decoded = False
        encode_s = sum(self._encode_s(job) for job, _ in self._chunks)
        self.usage.encode_s += encode_s
        new, attended, context = 0, 0.0, 0
        for job, size in self._chunks:
            new += size
            attended += size * (job.computed + size / 2)
            context += job.computed
        self._launch(StepShape(new, attended, len(self._chunks), context), encode_s)

    def _encode_s(self, job: Job) -> float:
        """Of the pictures that the pass has to encode."""
        missing = [index for index in range(len(job.work.media)) if index not in job.work.encoded]
        self.usage.num_encodes += len(missing)
        return sum(self.profile.encode.encode_s(job.work.media[index].num_tokens) for index in missing)

    def _progress(self, job: Job, size: int) -> None:
        for index, item in enumerate(job.work.media):
            if index not in job.work.encoded:
                self.encoder_cache.put(job.request.pictures[index].digest, item.num_tokens)
                self._listener.encoded(self, job, index, self.profile.encode.encode_s(item.num_tokens))
        super()._progress(job, size)
