from tests.coordinator.openai.conftest import door, make_http

__all__ = ["door", "make_http"]
