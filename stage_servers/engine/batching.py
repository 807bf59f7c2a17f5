"""Which rows run in the next step: decodes first, then prefill chunks."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from core.prompt_order import choose_chunks, is_text_ready
from stage_servers.engine.records import EngineConfig
from stage_servers.engine.sequence import Sequence
from stage_servers.engine.sequence_blocks import SequenceBlocks


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence that run in a step."""

    sequence: Sequence
    first_token: int
    num_tokens: int

    @property
    def end_token(self) -> int:
        return self.first_token + self.num_tokens

    @property
    def is_last(self) -> bool:
        """Whether the step gives the sequence a new token."""
        return self.end_token == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of the next step, and who must give way for them."""

    decodes: tuple[Chunk, ...] = ()
    prefills: tuple[Chunk, ...] = ()
    preempted: tuple[Sequence, ...] = ()
    starved: tuple[Sequence, ...] = ()  # cannot get a block, and no one can give way

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return self.decodes + self.prefills


class Batcher:
    """Chooses chunks and takes the blocks they need; the engine calls it once per step."""

    def __init__(self, config: EngineConfig, blocks: SequenceBlocks) -> None:
        self._config = config
        self._blocks = blocks

    def select(self, sequences: Iterable[Sequence]) -> Selection:
        """`sequences` in order of arrival; blocks of preempted ones are given back at once."""
        live = [sequence for sequence in sequences if not sequence.is_parked]
        preempted: list[Sequence] = []
        starved: list[Sequence] = []
        decodes = self._select_decodes(live, preempted, starved)
        gone = {id(sequence) for sequence in (*preempted, *starved)}
        waiting = [s for s in live if not s.is_decoding and id(s) not in gone]
        prefills = self._select_prefills(waiting, len(decodes), is_short=bool(gone))
        return Selection(tuple(decodes), tuple(prefills), tuple(preempted), tuple(starved))

    def can_run(self, sequences: Iterable[Sequence]) -> bool:
        """Whether `select` would choose a row or let a sequence fail; changes nothing."""
        live = [sequence for sequence in sequences if not sequence.is_parked]
        if any(s.is_decoding or (s.blocks and s.num_ready > 0) for s in live):
            return True
        first = next((s for s in live if not s.blocks and s.num_ready > 0), None)
        num_started = sum(bool(s.blocks) for s in live)
        if first is None or num_started >= self._config.max_sequences:
            return False
        return self._blocks.needed(first) <= self._blocks.num_room

    def has_ready_text(self, sequences: Iterable[Sequence]) -> bool:
        """Whether `select` would choose a row of a prompt without media; changes nothing."""
        prompts = (s for s in sequences if not s.is_parked and not s.is_decoding)
        return is_text_ready(prompts, lambda prompt: self._blocks.needed(prompt) <= self._blocks.num_room)

    def num_awaited(self, sequences: Iterable[Sequence]) -> int:
        """Embeddings that prompts wait for; 0 where one could run without."""
        prompts = [s for s in sequences if not s.is_parked and not s.is_decoding]
        return 0 if any(s.num_ready > 0 for s in prompts) else sum(s.num_missing for s in prompts)

    def _select_decodes(
        self, live: Seq[Sequence], preempted: list[Sequence], starved: list[Sequence]
    ) -> list[Chunk]:
        chosen: list[Sequence] = []
        room = min(self._config.max_sequences, self._config.max_batch_tokens)
        for sequence in [each for each in live if each.is_decoding and not each.waits_for_mask]:
            if len(chosen) == room or sequence in preempted:
                continue
            while not self._blocks.grow(sequence, sequence.num_computed + 1):
                victim = self._victim(live, preempted)
                if victim is None:
                    starved.append(sequence)
                    break
                self._blocks.free(victim)
                preempted.append(victim)
                if victim in chosen:
                    chosen.remove(victim)
                if victim is sequence:
                    break
            else:
                chosen.append(sequence)
        return [Chunk(sequence, sequence.num_computed, 1) for sequence in chosen]

    def _select_prefills(self, waiting: Seq[Sequence], num_decodes: int, *, is_short: bool) -> list[Chunk]:
        def admit(prompt: Sequence, kept: Sequence | None) -> bool:
            started = num_decodes + sum(bool(sequence.blocks) for sequence in waiting) + (kept is not None)
            if is_short or started >= self._config.max_sequences:
                return False
            return self._admit(prompt, num_decodes + (self._blocks.needed(kept) if kept else 0))

        most = self._config.max_batch_tokens
        chosen = choose_chunks(waiting, most - num_decodes, most, admit, self._config.prompt_order)
        return [Chunk(prompt, prompt.num_computed, num_tokens) for prompt, num_tokens in chosen]

    def _admit(self, sequence: Sequence, num_kept: int) -> bool:
        """Takes blocks for a whole new prompt, but leaves so many; each running decode needs one to grow."""
        is_enough = self._blocks.needed(sequence) + num_kept <= self._blocks.num_room
        return is_enough and self._blocks.start(sequence)

    def _victim(self, live: Seq[Sequence], preempted: Seq[Sequence]) -> Sequence | None:
        """The latest arrival that holds blocks and can be computed again.

        Hand-overs are spared: chunks of theirs are on their way to a peer.
        """
        for sequence in reversed(live):
            if (
                sequence.blocks
                and sequence.can_recompute
                and not sequence.hand_over
                and sequence not in preempted
            ):
                return sequence
        return None
