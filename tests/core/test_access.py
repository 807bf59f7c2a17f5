"""The cluster token: file mode, and who has it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from core.access import has_token, new_token, read_token, token_metadata, why_refused, write_token


def test_token_file_is_private_even_where_it_existed_openly(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    token = new_token()
    write_token(path, token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path) == token


@pytest.mark.parametrize("content", [b"\n", b"two words", b"two\nlines\n", b"\xff\xfe"])
def test_what_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no cluster token"):
        read_token(path)


def test_only_the_right_token_counts() -> None:
    assert has_token(token_metadata("right"), "right")
    assert not has_token(token_metadata("wrong"), "right")
    assert not has_token((), "right")
    assert not has_token((("authorization", "right"),), "right")


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ((), "none was given"),
        ((("user-agent", "x"),), "none was given"),
        (
            (("authorization", "my-secret"),),
            "what was given is not of the form 'authorization: Bearer SECRET'",
        ),
        ((("authorization", "Basic my-secret"),), "what was given is not of the form"),
        ((("authorization", "Bearer "),), "what was given is not of the form"),
        (token_metadata("my-secret"), "the one that was given is not known here"),
    ],
)
def test_a_refusal_says_whether_there_was_proof_and_repeats_none(
    metadata: tuple[tuple[str, str], ...], why: str
) -> None:
    assert why_refused(metadata).startswith(why)
    assert "my-secret" not in why_refused(metadata)
