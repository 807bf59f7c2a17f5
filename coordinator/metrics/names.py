"""How metrics are named: as vLLM's after the prefix, where vLLM has one of the meaning.

So its dashboards need another prefix only; docs/metrics.md lists all of them beside their counterparts.
"""

from __future__ import annotations

PREFIX = "elasticmm:"


def named(name: str) -> str:
    return PREFIX + name
