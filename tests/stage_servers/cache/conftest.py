"""Models as the tests of the engine have them."""

from __future__ import annotations

from tests.stage_servers.engine.conftest import _one_thread, first, pair, pairs

__all__ = ["_one_thread", "first", "pair", "pairs"]
