"""The reference of the wire: made from the schemas, complete, and not stale."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("grpc_tools")

SCRIPT = Path(__file__).resolve().parents[2] / "protos" / "document.py"


@pytest.fixture(scope="module")
def document() -> ModuleType:
    spec = importlib.util.spec_from_file_location("document", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["document"] = module
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_comment(document: ModuleType) -> None:
    schemas = document.load()
    assert {"GenerateRequest", "CacheScope", "Register", "ModalityGroup"} <= set(
        document.public_names(schemas)
    )
    assert "EncodeCommand" not in document.public_names(schemas)
    assert document.uncommented(schemas) == []


def test_a_missing_comment_is_found(document: ModuleType) -> None:
    schemas = document.load()
    del schemas.comments["Tokens.text"], schemas.comments["Media"]
    assert document.uncommented(schemas) == ["Media", "Tokens.text"]


def test_the_page_is_fresh(document: ModuleType) -> None:
    assert document.page(document.load()) == document.PAGE.read_text()


def test_links_lead_to_headings(document: ModuleType) -> None:
    text = document.reference(document.load())
    headings = {line.removeprefix("### ").lower() for line in text.splitlines() if line.startswith("### ")}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= headings


def test_types_are_told(document: ModuleType) -> None:
    text = document.reference(document.load())
    assert "| 11 `logit_bias` | map of uint32 to float |" in text
    assert "| 9 `seed` | optional uint64 |" in text
    assert "| 2 `image` | [ImagePart](#imagepart), one of `content` |" in text
    assert "| 3 `messages` | repeated [Message](#message) |" in text
    assert "stream [UploadRequest](#uploadrequest) → [UploadResponse](#uploadresponse)" in text
