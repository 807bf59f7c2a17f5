"""Which tokens a format allows next, worked out beside the engine's thread while a step runs."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from core.grammars import FormatError, Mask, Matcher
from stage_servers.engine.batching import Chunk
from stage_servers.engine.sequence import Sequence

# Two, so that a format that gets into a state for the first time does not hold up all others.
_NUM_WORKERS = 2
# After a step: several times what a mask takes in a state that was seen before.
_PATIENCE_S = 0.002


class Masks:
    """Called from the engine's thread alone; the work, which needs no interpreter lock, is its workers'.

    `prepare` goes before every token of a sequence: its mask is begun once it is known what comes before.
    """

    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(_NUM_WORKERS, thread_name_prefix="masks")

    def prepare(self, sequence: Sequence) -> None:
        """Begins with the mask of its next token; without a format there is none."""
        if sequence.matcher is None:
            return
        outputs = sequence.tokens[len(sequence.spec.prompt) :]
        if outputs:
            sequence.mask = self._workers.submit(sequence.matcher.allowed, outputs)
        else:
            sequence.mask = _first(sequence.matcher)
        sequence.is_mask_late = False

    def late(self, decodes: Iterable[Chunk]) -> list[Chunk]:
        """Those whose masks are not there after a short wait: they run again once these are."""
        masks: dict[Future[Mask], Chunk] = {
            chunk.sequence.mask: chunk for chunk in decodes if chunk.sequence.mask is not None
        }
        chunks = [masks[mask] for mask in wait(masks, _PATIENCE_S).not_done] if masks else []
        for chunk in chunks:
            chunk.sequence.is_mask_late = True
        return chunks

    def close(self) -> None:
        """What has not begun is dropped."""
        self._workers.shutdown(wait=True, cancel_futures=True)


def _first(matcher: Matcher) -> Future[Mask]:
    """Made in place: it was worked out when the format was compiled, and the end of a prompt, which holds up
    its whole step, must not wait for it behind others' masks.
    """
    mask: Future[Mask] = Future()
    try:
        mask.set_result(matcher.allowed(()))
    except FormatError as error:
        mask.set_exception(error)
    return mask
