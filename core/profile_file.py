"""Profiles as JSON files, strict; those that ship are found by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.profile import Profile, ProfileError
from core.record import RecordError, decode, encode

SHIPPED = Path(__file__).resolve().parent.parent / "profiles"


def shipped_profiles() -> tuple[str, ...]:
    """Names that `load_profile` knows, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def load_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, any other by the path of its file (which ends in .json or has a folder).

    Raises ProfileError (a ValueError) naming the file and the key that does not fit.
    """
    text = str(name_or_path)
    if text in shipped_profiles():
        return read_profile(SHIPPED / f"{text}.json")
    if isinstance(name_or_path, str) and not text.endswith(".json") and "/" not in text:
        raise ProfileError(f"{text}: no profile of that name (shipped: {', '.join(shipped_profiles())})")
    return read_profile(Path(name_or_path))


def read_profile(path: Path) -> Profile:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{path}: is no JSON (not UTF-8)") from None
    return parse_profile(content, str(path))


def parse_profile(content: str, source: str) -> Profile:
    """The profile in a file's text; `source` names the file in errors."""
    try:
        value = json.loads(content, object_pairs_hook=_without_repeats)
        profile = decode(Profile, value)
        profile.check()
    except RecordError as error:
        raise ProfileError(f"{source}: {error}") from None
    except (RecursionError, ValueError) as error:  # ValueError: also of a number of thousands of digits
        raise ProfileError(f"{source}: is no JSON ({error})") from None
    return profile


def format_profile(profile: Profile) -> str:
    """Text that `parse_profile` turns into an equal profile."""
    return json.dumps(encode(profile), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_profile(profile: Profile, path: Path) -> None:
    path.write_text(format_profile(profile), encoding="utf-8")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise RecordError(repeated, "stands there twice")
    return table
