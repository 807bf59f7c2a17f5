"""Rules of the house that no other tool checks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAMILY_NAME = re.compile(r"qwen|llava|gemma|internvl|pixtral|mllama", re.IGNORECASE)
# Adapters, what makes checkpoints to test and measure with, the demo model, its documentation, and what
# derives a published model's costs.
MAY_NAME_A_FAMILY = (
    "core/families/",
    "stage_servers/engine/families/",
    "models/demo/",
    "docs/models.md",
    "profiles/",
    "scenarios/",
    "tests/profiles/",
)
MAKERS = {
    "benchmarks/make_checkpoint.py",
    "tests/checkpoints.py",
    "tests/exactness.py",
    "tests/test_house.py",
}
SOURCE = {".py", ".proto", ".ts", ".md", ".toml", ".cpp"}


def tracked() -> list[str]:
    """Files of the project, also those not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_only_adapters_name_a_model_family() -> None:
    names = [name for name in tracked() if Path(name).suffix in SOURCE]
    assert len(names) > 100
    allowed = [name for name in names if name.startswith(MAY_NAME_A_FAMILY) or "models/demo/" in name]
    suspects = set(names) - set(allowed) - MAKERS
    assert not [name for name in sorted(suspects) if FAMILY_NAME.search(without_profile_names(name))]


def without_profile_names(name: str) -> str:
    """A file's text but for names of shipped profiles, which anyone may give."""
    text = (ROOT / name).read_text()
    for profile in (ROOT / "profiles").glob("*.json"):
        text = text.replace(profile.stem, "")
    return text


def test_documents_link_to_files_that_are_there() -> None:
    documents = [ROOT / name for name in tracked() if name.endswith(".md")]
    assert len(documents) >= 8
    links = [(document, *link) for document in documents for link in links_of(document)]
    assert any(anchor for _, _, anchor in links)
    assert not [link for link in links if not leads_somewhere(*link)]


def links_of(document: Path) -> list[tuple[str, str]]:
    """Files, "" for the document itself, and headings, "" for none."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", document.read_text())
    return [(target, anchor) for target, anchor in found if "://" not in target]


def leads_somewhere(document: Path, target: str, anchor: str) -> bool:
    path = document.parent / target if target else document
    return path.exists() and (not anchor or path.suffix != ".md" or anchor in headings_of(path))


def headings_of(document: Path) -> set[str]:
    """As they are linked to on GitHub."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_top_level_folder_is_explained() -> None:
    """Someone should understand the house from the architecture page."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    folders = {Path(name).parts[0] for name in tracked() if len(Path(name).parts) > 1}
    assert not [
        folder for folder in sorted(folders) if not folder.startswith(".") and f"{folder}/" not in page
    ]


def test_files_that_the_architecture_names_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(\w+/(?:\w+/)*(?:\w+\.\w+)?)`", page)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
