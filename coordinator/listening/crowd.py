"""How many may be inside of a door at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordinator.errors import OverloadedError

RETRY_AFTER_S = 1.0
DEFAULT_MOST = 4096


class Crowd:
    """Up to `most` connections or calls; `name` is what metrics call it, `setting` what sets the bound."""

    def __init__(
        self,
        name: str,
        most: int,
        setting: str,
        on_refusal: Callable[[], None] = lambda: None,
        *,
        knows_refused: bool = True,
    ) -> None:
        """`knows_refused` False: somebody else turns away, and does not say how many."""
        self.name = name
        self.most = most
        self.setting = setting
        self.num_inside = 0
        self.num_refused = 0
        self.knows_refused = knows_refused
        self._on_refusal = on_refusal

    def enter(self) -> bool:
        """Whether there was room: who got in leaves once."""
        if self.num_inside >= self.most:
            return False
        self.num_inside += 1
        return True

    def refuse(self) -> None:
        """One was turned away."""
        self.num_refused += 1
        self._on_refusal()

    def leave(self) -> None:
        assert self.num_inside, "nobody leaves who did not enter"
        self.num_inside -= 1

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Raises OverloadedError naming the setting where it is full."""
        if not self.enter():
            self.refuse()
            reason = f"{self.most} are under way, as many as may be ({self.setting})"
            raise OverloadedError(reason, RETRY_AFTER_S, self.setting)
        try:
            yield
        finally:
            self.leave()
