"""Scenes and questions: the same seed gives the same example, and the answer is the right one."""

import random
import re

import numpy as np
import pytest

from models.demo.questions import FAMILIES, NUMBERS, ask, random_example
from models.demo.scenes import Item, Scene, random_scene, render, write_examples

RED_CIRCLE = Item("red", "circle", 1.0, 2.0, 0.9)
BLUE_STAR = Item("blue", "star", 3.0, 2.0, 0.9)
SCENE = Scene((RED_CIRCLE, BLUE_STAR), (10, 10, 10), 0, 112, 112, 28, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_gives_the_same_example(family: str) -> None:
    assert random_example(random.Random(5), family) == random_example(random.Random(5), family)


def test_same_scene_gives_the_same_pixels() -> None:
    scene = random_scene(random.Random(3))
    assert render(scene).tobytes() == render(scene).tobytes()


def test_shapes_are_painted_where_the_scene_says() -> None:
    pixels = np.asarray(render(SCENE)).astype(int)
    red, blue = pixels[56, 28], pixels[56, 84]
    assert red.argmax() == 0
    assert blue.argmax() == 2
    assert tuple(pixels[5, 5]) == SCENE.background


def test_items_run_from_left_to_right_and_never_repeat() -> None:
    rng = random.Random(0)
    for _ in range(200):
        items = random_scene(rng).items
        assert [item.x for item in items] == sorted(item.x for item in items)
        assert len({item.name for item in items}) == len(items)


def test_describe_names_every_item_in_order() -> None:
    example = ask(random.Random(0), "describe", (SCENE,))
    assert example is not None
    assert example.answer == "A red circle and a blue star."


def test_beside_names_the_neighbour() -> None:
    example = ask(random.Random(0), "beside", (SCENE,))
    assert example is not None
    right = "left of the blue star" in example.question
    assert example.answer == ("A red circle." if right else "A blue star.")


def test_colour_is_asked_only_of_a_single_shape() -> None:
    twins = Scene((RED_CIRCLE, Item("blue", "circle", 3.0, 2.0, 0.9)), (10, 10, 10), 0, 112, 112, 28, 7)
    assert ask(random.Random(0), "colour", (twins,)) is None


def _asked(question: str) -> str:
    return re.sub(r"^(How many|Count the) |( are there| do you see)?[?.]$", "", question)


@pytest.mark.parametrize(
    ("asked", "count"),
    [("shapes", 3), ("circles", 2), ("stars", 1), ("crosses", 0), ("red shapes", 2)],
)
def test_count_counts_what_was_asked(asked: str, count: int) -> None:
    third = Item("red", "star", 2.0, 1.0, 0.9)
    circles = (RED_CIRCLE, Item("blue", "circle", 3.0, 2.0, 0.9), third)
    scene = Scene(circles, (10, 10, 10), 0, 112, 112, 28, 7)
    rng = random.Random(1)
    drawn = [ask(rng, "count", (scene,)) for _ in range(300)]
    answers = {one.answer for one in drawn if one is not None and asked == _asked(one.question)}
    verb = "There is one" if count == 1 else f"There are {NUMBERS[count]}"
    assert answers
    assert all(answer.startswith(verb) for answer in answers)


def test_sum_is_right() -> None:
    rng = random.Random(2)
    for _ in range(50):
        left, right, total = map(int, re.findall(r"\d+", random_example(rng, "sum").answer))
        assert left + right == total


def test_written_examples_repeat_with_the_seed(tmp_path_factory: pytest.TempPathFactory) -> None:
    folders = [tmp_path_factory.mktemp("examples") for _ in range(2)]
    for folder in folders:
        write_examples(folder, seed=4, count=len(FAMILIES))
    one, other = ({path.name: path.read_bytes() for path in each.iterdir()} for each in folders)
    assert one == other
    assert "questions.jsonl" in one
