import pytest

from tests.coordinator.openai.conftest import door, make_http

__all__ = ["door", "make_http"]


@pytest.fixture
def place() -> str:
    """The door that has the page."""
    return "inside"
