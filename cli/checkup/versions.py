"""Whether the packages that serving needs are there, in versions that it works with."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from cli.checkup.finding import Finding, fine, problem

OLDEST_PYTHON = (3, 11)
OLDEST = {
    "torch": (2, 11),
    "transformers": (5, 17),
    "grpcio": (1, 78),
    "protobuf": (6, 31, 1),
}


def check_versions(oldest: Mapping[str, tuple[int, ...]] = OLDEST) -> Iterator[Finding]:
    """Of python, ours, and each package of `oldest`."""
    yield _check_python()
    yield _check_ours()
    for name, lowest in oldest.items():
        yield check_package(name, lowest)


def check_package(name: str, oldest: tuple[int, ...]) -> Finding:
    wanted = ".".join(map(str, oldest))
    mend = f"pip install '{name}>={wanted}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return problem(name, "is not installed", mend)
    if _numbers(version) < oldest:
        return problem(name, f"{version} is older than {wanted}", mend)
    return fine(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.13.0+cpu" as (2, 13, 0); a pre-release counts as what it is before."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release.group().split("."))) if release else ()


def _check_python() -> Finding:
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return problem(
            "python", f"{platform.python_version()} is older than {wanted}", f"use python {wanted}"
        )
    return fine("python", platform.python_version())


def _check_ours() -> Finding:
    try:
        return fine("elasticmm", metadata.version("elasticmm"))
    except metadata.PackageNotFoundError:
        return problem(
            "elasticmm", "runs from a folder that is not installed", "pip install -e . in its folder"
        )
