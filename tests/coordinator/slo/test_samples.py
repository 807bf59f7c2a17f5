import random

from coordinator.slo.samples import NewestSamples


def test_the_newest_are_kept_in_order() -> None:
    samples, given = NewestSamples(50), []
    draw = random.Random(1)
    for _ in range(400):
        given.append(draw.choice((0.25, 0.5, draw.random())))
        samples.add(given[-1])
        assert samples.ascending() == tuple(sorted(given[-50:]))
