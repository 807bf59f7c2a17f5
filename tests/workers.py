"""How the suite is shared among processes (`pytest -n 2`): file by file, to whichever worker is free.

All tests of a file run in one worker and in their order: what a module sets up is set up once.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

# Files that share a cluster, or that write into one folder.
TOGETHER = {
    "tests/deploy/live/": "a cluster that is watched",
    "tests/clients/test_typescript.py": "the TypeScript client",
    "tests/integration/test_typescript.py": "the TypeScript client",
}


class ByFile(LoadScopeScheduling):
    """In parts as `part_of` names them, in the order in which workers collected them."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)


def part_of(nodeid: str) -> str:
    """What a test must run in one worker with: the others of its file, or of an entry of TOGETHER."""
    name = nodeid.partition("::")[0]
    return next((part for place, part in TOGETHER.items() if name.startswith(place)), name)


def longest_first(items: list[pytest.Item]) -> None:
    """Files that start clusters go first: the end, when a worker may have to wait, is of short ones."""
    long = {item.path for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: item.path not in long)
