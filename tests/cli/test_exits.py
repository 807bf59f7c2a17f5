import json

import pytest

from cli.exits import print_json


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"numbers": [{"tolerance": float("inf"), "score": 0.5}], "none": (float("nan"), "ä", 1)})
    said = capsys.readouterr().out
    assert json.loads(said) == {"numbers": [{"tolerance": None, "score": 0.5}], "none": [None, "ä", 1]}
    assert "ä" in said
