from __future__ import annotations

from core.cache.eviction import POLICY_NAMES
from core.cache.policies import POLICIES


def test_every_policy_has_its_name() -> None:
    assert set(POLICIES) == set(POLICY_NAMES)
