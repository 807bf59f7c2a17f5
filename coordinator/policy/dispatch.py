"""First come, first served within each modality group, under memory and the token budget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from coordinator.policy.books import Books
from coordinator.policy.choice import Choice
from coordinator.policy.columns import Bools, Columns, Floats, Ints
from coordinator.policy.costing import Costing
from coordinator.policy.decisions import DecisionRing
from coordinator.policy.forms import PD, D, E, P
from coordinator.policy.lateness import ArrivalQueueing, Queueing
from coordinator.policy.one_by_one import OneByOne
from coordinator.policy.reuse import Reuse, Start
from coordinator.policy.starts import StartRows
from coordinator.policy.turns import Turns
from coordinator.policy.view import Placement
from coordinator.policy.warmth import COLD, Warmth, WarmthSource
from coordinator.policy.work import Work, are_small
from core.stages import COUPLED

FEW = 64  # instances; for no more of them it is quicker to weigh one after the other


class _Encoding(NamedTuple):
    """Where media go (rows, one per item that needs encoding) and after how many seconds all have arrived."""

    rows: tuple[int, ...]
    ready_s: float


_NO_MEDIA = _Encoding((), 0.0)
_NO_ROOM = _Encoding((), np.inf)


class Dispatch:
    """Chooses instances for the first waiting request of a group.

    A prefill instance takes text while its open text stays within the token budget and what lies there
    leaves the text in time, and any where none lies there. It takes media while what it has to do would end,
    at the latest, one prefill of that length after their embeddings are there, and any where none lie there.
    One that encodes takes them only while no more lies there than the request brings itself (less where that
    would make it late) or half a step, or, where text is all there is, a quarter of a step; who is due goes
    to any without media. An encoder takes no more, either, but small items pass large ones. The rest
    waits here, where it can still go elsewhere and text can pass it; so does all for which no decode instance
    has blocks, and a place in its batch or turns that are short enough for the target per token. Among those
    with room, the earliest predicted first token wins; then the decode instance where the answer is predicted
    to end first.
    With `together`, one instance does all stages of a request, as coupled replicas do.

    What caches spare an instance (`Reuse`) counts as work that it does not have: seconds saved are weighed
    against seconds queued.

    Many instances are weighed at once, in columns; `OneByOne` does the same for few.
    """

    def __init__(
        self,
        costing: Costing,
        turns: Turns,
        decisions: DecisionRing,
        *,
        queueing: Queueing | None = None,
        warmth: WarmthSource | None = None,
        together: bool = False,
        few: int = FEW,
    ) -> None:
        """`queueing` None: first come, first served. Up to `few` instances are weighed one by one."""
        self._costing = costing
        self._turns = turns
        self._decisions = decisions
        self._together = together
        self._queueing = queueing or ArrivalQueueing()
        self._warmth = warmth
        self._columns = Columns(costing)
        self._few = few
        self._one_by_one = OneByOne(costing, self._queueing, together=together)
        self._blocked: tuple[int, int, int, list[Work], list[bool]] | None = None

    def place(self, books: Books, now_s: float) -> Placement | None:
        """The next request to dispatch, or None; the driver applies it before it asks again."""
        order = self._turns.order(books)
        firsts = [work for group in order if (work := self._queueing.first(books, group, now_s)) is not None]
        warm_version = 0 if self._warmth is None else self._warmth.version
        due = [self._queueing.is_due(work, now_s) for work in firsts]
        state = books.version, books.journal.end, warm_version, firsts, due
        if not firsts or state == self._blocked:
            return None
        choose = self._one_by_one.choose if len(books.instances) <= self._few else self._choose
        for work, is_due in zip(firsts, due, strict=True):
            reuse = Reuse(work, self._warmth_of(work), books, self._costing.model, alone=self._together)
            choice = choose(books, work, reuse, is_due=is_due)
            if choice is not None:
                placement = choice.placement(work, now_s)
                self._turns.took(work, placement)
                self._decisions.add_later("dispatch", partial(choice.decision, work, placement))
                return placement
        self._blocked = state
        return None

    def note_first_token(self, work: Work, ttft_s: float) -> None:
        """What was placed has shown its first token."""
        self._queueing.shown(work, work.arrival_s + ttft_s)

    def _warmth_of(self, work: Work) -> Warmth:
        return COLD if self._warmth is None else self._warmth.of(work)

    def _choose(self, books: Books, work: Work, reuse: Reuse, *, is_due: bool) -> Choice | None:
        columns = self._columns
        columns.refresh(books)
        rows = self._with_room(work)
        if not rows.size:
            return None
        starts = StartRows(reuse, columns, rows)
        spreads = self._spread_media(work, starts.different) if work.media else []
        first_s, is_local = self._first_token_s(work, rows, starts, spreads, is_due=is_due)
        best = int(first_s.argmin())
        soonest_s = float(first_s[best])
        if soonest_s == np.inf:
            return None
        prefill, number = int(rows[best]), starts.at(best)
        start = starts.different[number]
        decode = self._choose_decode(work, prefill, start)
        if decode is None:
            return None
        ids = columns.ids
        names: tuple[str, ...] = ()
        if work.media:
            encode = (prefill,) * len(start.needed) if is_local[best] else spreads[number].rows
            names = tuple(ids[row] for row in encode)
        return Choice(
            reuse.encoders(start, ids[prefill], names, lambda: self._stand_in(work, prefill)),
            ids[prefill],
            ids[decode],
            soonest_s,
            float(columns.backlog_s[prefill]),
            float(columns.decode_step_s[decode]),
            start,
        )

    def _with_room(self, work: Work) -> Ints:
        """Prefill instances with free KV and embedding blocks for the request."""
        columns = self._columns
        together = COUPLED if work.media else PD
        rows = columns.players(together if self._together else P, work.group)
        tokens = work.promised_tokens if self._together else work.context_tokens
        able = columns.free_kv_tokens[rows] >= tokens
        if work.media:
            able &= columns.free_embedding_blocks[rows] >= work.embedding_blocks
        able_rows: Ints = rows[able]
        return able_rows

    def _spread_media(self, work: Work, starts: Sequence[Start]) -> list[_Encoding]:
        """For each of the starts."""
        known: dict[tuple[int, ...], _Encoding] = {}
        for start in starts:
            needed = tuple(start.needed)
            if needed not in known:
                known[needed] = self._spread(work, start)
        return [known[tuple(start.needed)] for start in starts]

    def _spread(self, work: Work, start: Start) -> _Encoding:
        """Each needed item to the encoder that is predicted to finish it first, the longest item first."""
        columns = self._columns
        if self._together:
            return _NO_ROOM
        if not start.needed:
            return _NO_MEDIA
        encoders = columns.players(E, work.group)
        passed_s = columns.passed_s if are_small(work, start.needed) else np.zeros(len(columns.ids))
        most_s = max(start.encode_s, self._costing.most_queued_s)
        encoders = encoders[columns.encode_s[encoders] - passed_s[encoders] <= most_s]
        if not encoders.size:
            return _NO_ROOM
        backlog_s = columns.backlog_s[encoders] - passed_s[encoders]
        chosen: dict[int, int] = {}
        ready_s = 0.0
        for index in sorted(start.needed, key=lambda index: -work.media[index].encode_s):
            item = work.media[index]
            place = int(backlog_s.argmin())
            backlog_s[place] += item.encode_s
            chosen[index] = int(encoders[place])
            move_s = self._costing.model.embedding_move_s(item.num_tokens)
            ready_s = max(ready_s, float(backlog_s[place]) + move_s)
        return _Encoding(tuple(chosen[index] for index in start.needed), ready_s)

    def _stand_in(self, work: Work, prefill: int) -> str:
        """Who would encode what a prefix spares: the prefill instance, else the least busy encoder."""
        columns = self._columns
        encoders = columns.players(E, work.group)
        if columns.encodes[prefill] or not encoders.size:
            return columns.ids[prefill]
        return columns.ids[int(encoders[columns.backlog_s[encoders].argmin()])]

    def _first_token_s(
        self, work: Work, rows: Ints, starts: StartRows, spreads: list[_Encoding], *, is_due: bool
    ) -> tuple[Floats, Bools]:
        """Seconds to the first token by prefill row, and on which rows the media had best be encoded too.

        Infinite where the budget does not take the request now.
        """
        columns = self._columns
        backlog_s = columns.backlog_s[rows]
        own_s = starts.of(lambda start: start.prefill_s) * columns.stretch[rows]
        arrive_s = starts.of(lambda start: start.arrive_s)
        if not work.media:
            start_s = np.maximum(backlog_s, arrive_s) if starts.are_warm else backlog_s
            takes = self._takes_text(work, rows, starts.of(lambda start: start.cached_tokens))
            return np.where(takes, start_s + own_s, np.inf), _nowhere(rows)
        is_free = columns.media_tokens[rows] == 0
        ready_s = starts.spread(
            [max(each.ready_s, start.arrive_s) for each, start in zip(spreads, starts.different, strict=True)]
        )
        encode_s = starts.of(lambda start: start.encode_s)
        start_s = np.maximum(backlog_s, ready_s)
        start_s[~is_free & (backlog_s > ready_s + own_s)] = np.inf
        queued_s = np.minimum(encode_s + own_s, self._queueing.slack_s(work))
        most_s = np.maximum(queued_s, self._costing.most_queued_s)
        most_s = np.where(is_free & (columns.text_tokens[rows] > 0), self._costing.most_text_s, most_s)
        is_open = (backlog_s <= most_s) | (is_free & is_due)
        start_s[columns.encodes[rows] & ~is_open] = np.inf
        may_encode = columns.encodes[rows] & is_open
        local_s = np.where(may_encode, backlog_s + encode_s, np.inf)
        if starts.are_warm:
            local_s = np.maximum(local_s, arrive_s)
        return np.minimum(start_s, local_s) + own_s, (local_s <= start_s) & may_encode

    def _takes_text(self, work: Work, rows: Ints, cached_tokens: Floats | float) -> Bools:
        """By open tokens of text alone, so that text never waits for room behind media.

        What would be late behind other text waits here, where it can still yield.
        """
        columns, costing = self._columns, self._costing
        tokens = columns.text_tokens[rows]
        before_s = tokens * columns.stretch[rows] * costing.chunk_s / costing.profile.chunk_tokens
        fits = tokens + (work.context_tokens - cached_tokens) <= costing.open_tokens
        takes: Bools = (tokens == 0) | (fits & (before_s <= self._queueing.slack_s(work)))
        return takes

    def _choose_decode(self, work: Work, prefill: int, start: Start) -> int | None:
        """Where the answer ends first; the prefill instance at a tie, if it decodes."""
        columns = self._columns
        if self._together:
            return prefill
        rows = columns.players(D, work.group)
        rows = rows[columns.free_kv_tokens[rows] >= work.promised_tokens]
        if not rows.size:
            return None
        end_s = columns.decode_step_s[rows] * work.reserve_tokens + columns.backlog_s[rows]
        end_s += np.where(rows == prefill, -1e-9, self._costing.hand_over_s(work, start.prefill_s))
        return int(rows[end_s.argmin()])


def _nowhere(rows: Ints) -> Bools:
    return np.zeros(rows.size, dtype=np.bool_)
