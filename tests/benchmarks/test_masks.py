"""What formats cost."""

from benchmarks.masks import FORMS, measure


def test_every_format_is_measured_alone_and_among_others() -> None:
    result = measure(vocab_size=2000, num_sequences=3, num_tokens=4)
    assert result["formats"].keys() == FORMS.keys()
    for values in result["formats"].values():
        assert len(values) == 6
        assert all(value > 0 for value in values.values())
