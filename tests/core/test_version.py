from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from core.version import version

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    version.cache_clear()
    yield
    version.cache_clear()


def test_what_is_installed_says_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"elasticmm": "3.2.1"}.__getitem__)
    assert version() == "3.2.1"


def test_a_source_folder_says_it_without_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version() == tomllib.loads(PROJECT.read_text())["project"]["version"]
