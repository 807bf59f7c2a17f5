"""Which version of this project runs, installed or from its source folder."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

_NAME = "elasticmm"


@cache
def version() -> str:
    """As `pip show` gives it; where nothing is installed, that of the source folder."""
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])
