from __future__ import annotations

import pytest

from core.profile import Profile
from tests.quick_profile import make_profile


@pytest.fixture
def profile() -> Profile:
    return make_profile()
