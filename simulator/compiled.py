"""The simulator and the policies as machine code, made by mypyc of the same sources: about twice as fast.

python -m simulator.compiled     compiles them for this Python, in minutes; again after the sources changed

What was compiled lies in the user's cache folder. `elasticmm simulate` takes it where it is of the present
sources, and the sources themselves otherwise: the results are the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from core.compiled import NativeError, cache_folder, made_once

VARIABLE = "ELASTICMM_COMPILED"  # in the environment; 0: sources only
_KIND = "simulator"
_ROOT = Path(__file__).parent.parent
_PACKAGES = ("coordinator/policy", "simulator")
_CORE = ("core.encode_turns",)
# With exceptions, which mypyc derives no class from, or with what processes send each other: compiled classes
# cannot be pickled. The rest reads scenarios. None of it costs time.
_INTERPRETED = frozenset(
    (
        "coordinator.policy.pieces",
        "coordinator.policy.scheduler",
        "coordinator.policy.transition",
        *(
            f"simulator.{name}"
            for name in (
                "cache_counts",
                "compiled",
                "config",
                "metrics",
                "records",
                "report",
                "result",
                "scenario",
                "search",
                "sweep",
                "unloaded",
                "usage",
                "variants",
            )
        ),
    )
)
_SLOTS = re.compile(r"\(slots=True\)|, slots=True|slots=True, ")  # compiled classes have no __dict__ anyhow
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

options = ["--follow-imports=silent", "--ignore-missing-imports", "--strict"]
modules = mypycify([*options, *sys.argv[1:]], opt_level="2", debug_level="0")
setup(name="compiled", packages=[], ext_modules=modules, script_args=["-q", "build_ext", "--inplace"])
"""
_TIMEOUT_S = 1800


def use() -> bool:
    """Lets modules that are imported from now on be compiled ones, if there are any of these sources.

    It changes nothing where some of them are imported already. Returns whether compiled ones are in use.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return True
    if os.environ.get(VARIABLE) == "0" or any(name in sys.modules for name in modules()):
        return False
    try:
        folder = cache_folder() / f"{_KIND}-{_identity()}"
    except (NativeError, OSError):
        return False
    if not folder.is_dir():
        return False
    sys.meta_path.insert(0, _Finder(folder))
    return True


def ensure_built() -> Path:
    """The folder of the compiled modules, compiling them if need be. Raises NativeError."""
    missing = [name for name in ("mypyc", "setuptools") if find_spec(name) is None]
    if missing:
        raise NativeError(f"{' and '.join(missing)} missing: pip install 'elasticmm[compiled]'")
    return made_once(_KIND, _identity(), _make)


@cache
def modules() -> tuple[str, ...]:
    """Names of all modules that are compiled."""
    names = [
        f"{package.replace('/', '.')}.{path.stem}"
        for package in _PACKAGES
        for path in sorted((_ROOT / package).glob("*.py"))
        if path.stem != "__init__"
    ]
    return (*_CORE, *[name for name in names if name not in _INTERPRETED])


class _Finder(MetaPathFinder):
    """Finds compiled modules before the import system finds their sources."""

    def __init__(self, folder: Path) -> None:
        self._files = {_module_of(path, folder): str(path) for path in _libraries(folder)}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def _identity() -> str:
    """Of all sources that they are compiled with, and of what they are compiled for."""
    digest = hashlib.sha256(repr((sys.version, sysconfig.get_platform())).encode())
    for source in sorted(path for each in ("core", *_PACKAGES) for path in (_ROOT / each).rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _make(made: Path) -> None:
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        tree = Path(scratch)
        _copy_sources(tree)
        _compile(tree)
        _take(tree, made)


def _copy_sources(tree: Path) -> None:
    """Of the modules and of what they import, as mypyc takes them."""
    for package in ("core", "coordinator", "simulator"):
        shutil.copytree(_ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in modules():
        source = _source(tree, name)
        source.write_text(_SLOTS.sub("", source.read_text()))


def _compile(tree: Path) -> None:
    files = [str(_source(tree, name).relative_to(tree)) for name in modules()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        subprocess.run(
            [sys.executable, "-c", _SETUP, *files],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = f"{error.stdout}{error.stderr}".strip()
        raise NativeError(f"mypyc failed: {said[-1000:]}") from None
    except subprocess.TimeoutExpired:
        raise NativeError(f"mypyc took more than {_TIMEOUT_S} s") from None


def _take(tree: Path, made: Path) -> None:
    for library in _libraries(tree):
        if library.relative_to(tree).parts[0] != "build":
            target = made / library.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            library.replace(target)


def _libraries(folder: Path) -> Iterator[Path]:
    return folder.rglob(f"*{EXTENSION_SUFFIXES[0]}")


def _module_of(library: Path, folder: Path) -> str:
    relative = str(library.relative_to(folder)).removesuffix(EXTENSION_SUFFIXES[0])
    return relative.replace(os.sep, ".")


def _source(root: Path, name: str) -> Path:
    return root / f"{name.replace('.', '/')}.py"


if __name__ == "__main__":
    print(ensure_built())
