import json

import pytest
import typer

from cli.exits import failures, print_json
from elasticmm_client.errors import AccessDenied, NotRunning


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"numbers": [{"tolerance": float("inf"), "score": 0.5}], "none": (float("nan"), "ä", 1)})
    said = capsys.readouterr().out
    assert json.loads(said) == {"numbers": [{"tolerance": None, "score": 0.5}], "none": [None, "ä", 1]}
    assert "ä" in said


@pytest.mark.parametrize(
    ("message", "way"),
    [
        ("this service needs the cluster token", "--token-file"),
        ("this call needs an API key", "ELASTICMM_API_KEY"),
    ],
)
def test_who_is_not_let_in_hears_how(capsys: pytest.CaptureFixture[str], message: str, way: str) -> None:
    with pytest.raises(typer.Exit), failures():
        raise AccessDenied(message, code="UNAUTHENTICATED")
    assert way in capsys.readouterr().err
    with pytest.raises(typer.Exit), failures():
        raise AccessDenied(message, code="PERMISSION_DENIED")
    assert way not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("Connection refused", "start one with: elasticmm up"),
        ("Socket closed", "does the cluster speak TLS"),
        ("Hostname Verification Check failed.", "does the cluster speak TLS"),
    ],
)
def test_what_tls_prevents_is_told_from_nobody(
    capsys: pytest.CaptureFixture[str], reason: str, hint: str
) -> None:
    with pytest.raises(typer.Exit), failures():
        raise NotRunning(f"failed to connect to all addresses; last error: {reason}", code="UNAVAILABLE")
    assert hint in capsys.readouterr().err
