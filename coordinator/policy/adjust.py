"""The fast loop: single instances change where that spares requests more than it costs others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coordinator.policy.allocation import prefill_change
from coordinator.policy.change import DECODE_SCALING, Change, best_change
from coordinator.policy.costing import Costing
from coordinator.policy.offers import Need, Terms, offers
from coordinator.policy.pieces import Piece, Pieces
from coordinator.policy.plan import Assignment
from coordinator.policy.scaling import decode_bottleneck, encode_bottleneck
from coordinator.policy.scheduler import Slo
from coordinator.policy.standing import Standing
from coordinator.policy.standings import Standings, roles_for
from core.stages import ModalityGroup, Stage


class Adjuster:
    """At most one change per group and tick, so that the next one sees what it did.

    Remembers which instances decode was lent, to give them back.
    """

    def __init__(self, costing: Costing, slo: Slo, pieces: Pieces) -> None:
        self._costing = costing
        self._slo = slo
        self._pieces = pieces
        self._lent: dict[str, tuple[Assignment, Assignment]] = {}  # what it was, what it became

    def changes(
        self, standings: Standings, wanted: Mapping[str, Assignment], terms: Terms
    ) -> Iterator[Change]:
        self._forget_lent(wanted)
        for group in sorted(standings, key=lambda group: group.value):
            change = self._change(standings[group], standings, wanted, terms)
            if change is not None:
                yield change

    def made(self, change: Change, before: Assignment) -> None:
        """The change was made; one that was refused leaves nothing behind."""
        if self._lent.pop(change.instance_id, None) is None and change.is_loan:
            self._lent[change.instance_id] = before, change.to

    def _change(
        self, own: Standing, standings: Standings, wanted: Mapping[str, Assignment], terms: Terms
    ) -> Change | None:
        return (
            self._scale_decode(own, standings, wanted, terms)
            or self._scale_encode(own, wanted, terms)
            or self._speed_up(own, standings, wanted, terms)
            or self._give_back(own, terms)
        )

    def _scale_decode(
        self, own: Standing, standings: Standings, wanted: Mapping[str, Assignment], terms: Terms
    ) -> Change | None:
        """An idle instance, else the better of one inside and one of the other group."""
        if Piece.DECODE_SCALING not in self._pieces:
            return None
        reason = decode_bottleneck(own, self._costing, self._slo)
        if reason is None:
            return None
        to = Assignment(roles_for(Stage.DECODE, own.group, wanted), own.group)
        givers = (own, *_others(own, standings))
        need = Need(Stage.DECODE, to, own)
        return best_change(
            change for giver in givers for change in offers(DECODE_SCALING, need, giver, terms)
        )

    def _scale_encode(self, own: Standing, wanted: Mapping[str, Assignment], terms: Terms) -> Change | None:
        if Piece.ENCODE_SCALING not in self._pieces or encode_bottleneck(own, self._slo) is None:
            return None
        to = Assignment(roles_for(Stage.ENCODE, own.group, wanted), own.group)
        return best_change(offers("encode scaling", Need(Stage.ENCODE, to, own), own, terms))

    def _speed_up(
        self, own: Standing, standings: Standings, wanted: Mapping[str, Assignment], terms: Terms
    ) -> Change | None:
        """Prefill allocation; and where the group is late, whatever helps its slower stage most."""
        options: list[Change] = []
        to = Assignment(roles_for(Stage.PREFILL, own.group, wanted), own.group)
        if Piece.ALLOCATION in self._pieces:
            options += prefill_change(own, to, terms)
        if Piece.BALANCER_REACTIVE in self._pieces and own.ttft_s() > self._slo.group_ttft_s(own.group):
            options += self._react(own, standings, wanted, terms)
        return best_change(options)

    def _react(
        self, own: Standing, standings: Standings, wanted: Mapping[str, Assignment], terms: Terms
    ) -> Iterator[Change]:
        """Changing roles inside against taking an instance of the other group."""
        stage = max((Stage.PREFILL, Stage.ENCODE), key=own.wait_s)
        to = Assignment(roles_for(stage, own.group, wanted), own.group)
        for giver in (own, *_others(own, standings)):
            yield from offers("balancer reactive", Need(stage, to, own), giver, terms)

    def _give_back(self, own: Standing, terms: Terms) -> Change | None:
        """One that decode was lent, where it does without."""
        if not self._lent:
            return None
        for book in own.players[Stage.DECODE]:
            if book.instance_id not in self._lent or not terms.may_move(book):
                continue
            if decode_bottleneck(own, self._costing, self._slo, fewer=1) is None:
                before, _ = self._lent[book.instance_id]
                return Change(
                    DECODE_SCALING, book.instance_id, before, 0.0, 0.0, "decode does without it again"
                )
        return None

    def _forget_lent(self, wanted: Mapping[str, Assignment]) -> None:
        """Those that were given something else since."""
        for name, (_, became) in list(self._lent.items()):
            if wanted.get(name) != became:
                del self._lent[name]


def _others(own: Standing, standings: Standings) -> list[Standing]:
    """The other group, if there is one; the owner of a shared group has none."""
    return [each for group, each in standings.items() if group not in (own.group, ModalityGroup.SHARED)]
