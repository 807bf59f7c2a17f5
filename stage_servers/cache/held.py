"""An embedding in use, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(slots=True, eq=False)
class HeldEmbedding:
    """Its bytes stay as they are until all users have let go. Used on the event loop."""

    embedding: torch.Tensor  # [num_tokens, embedding_width]
    let_go: Callable[[], None]  # called once
    blocks: tuple[int, ...] = ()  # of this instance's pool, if it lies there
    num_users: int = 1

    def share(self) -> HeldEmbedding:
        """For one more user, who releases it, too."""
        self.num_users += 1
        return self

    def release(self) -> None:
        """Raises ValueError if nobody uses it."""
        if not self.num_users:
            raise ValueError("the embedding is released more often than it was shared")
        self.num_users -= 1
        if not self.num_users:
            self.let_go()
