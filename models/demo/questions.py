"""Questions about scenes, and small text-only tasks, each with its one right answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from models.demo.scenes import COLOURS, SHAPES, Scene, random_scene

NUMBERS = ("no", "one", "two", "three", "four")
ORDINALS = ("first", "second")
WORDS = (
    *COLOURS,
    *SHAPES,
    *("apple", "bird", "boat", "book", "cat", "chair", "cloud", "dog", "door", "fish"),
    *("flower", "garden", "hello", "house", "lamp", "milk", "moon", "river", "stone", "sun"),
    *("table", "tree", "water", "window", "world"),
    *"abcdefghijklmnopqrstuvwxyz",
)
MAX_COUNT = 30
MAX_COUNT_STEPS = 10
MAX_REPEAT_WORDS = 4

# A family's rule writes question and answer, or None where the scenes leave a doubt.
Pair = tuple[str, str]
PictureRule = Callable[[random.Random, tuple[Scene, ...]], Pair | None]
TextRule = Callable[[random.Random], Pair]


@dataclass(frozen=True, slots=True)
class Example:
    """One question, the scenes it is about in their order (none: text only), and its answer."""

    family: str
    question: str
    scenes: tuple[Scene, ...]
    answer: str


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _colour(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    scene = scenes[0]
    item = rng.choice(scene.items)
    if len(scene.with_shape(item.shape)) != 1:
        return None
    asked = rng.choice(
        (
            "What colour is the {0}?",
            "What color is the {0}?",
            "Which colour does the {0} have?",
            "Tell me the colour of the {0}.",
        )
    )
    return asked.format(item.shape), f"The {item.shape} is {item.colour}."


def _shape(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    scene = scenes[0]
    item = rng.choice(scene.items)
    if len(scene.with_colour(item.colour)) != 1:
        return None
    asked = rng.choice(
        (
            "What shape is the {0} one?",
            "Which shape is {0}?",
            "What is the {0} thing?",
            "Name the {0} shape.",
        )
    )
    return asked.format(item.colour), f"The {item.colour} one is {_with_article(item.shape)}."


def _count(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    scene = scenes[0]
    kind = rng.random()
    if kind < 0.34:
        one, many, count = "shape", "shapes", len(scene.items)
    elif kind < 0.67:
        shape = rng.choice((rng.choice(SHAPES), rng.choice(scene.items).shape))
        one, many, count = shape, _plural(shape), len(scene.with_shape(shape))
    else:
        colour = rng.choice((rng.choice(list(COLOURS)), rng.choice(scene.items).colour))
        one, many, count = f"{colour} shape", f"{colour} shapes", len(scene.with_colour(colour))
    asked = rng.choice(("How many {0} are there?", "How many {0} do you see?", "Count the {0}.")).format(many)
    if count == 1:
        return asked, f"There is one {one}."
    return asked, f"There are {NUMBERS[count]} {many}."


def _beside(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    items = scenes[0].items
    if len(items) not in (2, 3):
        return None
    side = rng.choice(("left", "right"))
    # Exactly one item stands on that side of the second from it.
    answer, reference = (items[0], items[1]) if side == "left" else (items[-1], items[-2])
    asked = rng.choice(
        (
            "What is {0} of the {1}?",
            "What is to the {0} of the {1}?",
            "What do you see {0} of the {1}?",
        )
    )
    return asked.format(side, reference.name), _sentence(_with_article(answer.name))


def _describe(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    items = scenes[0].items
    if len(items) > 3:
        return None
    asked = rng.choice(
        (
            "Describe the picture.",
            "Describe this image.",
            "What is in the picture?",
            "What do you see?",
        )
    )
    names = [_with_article(item.name) for item in items]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return asked, _sentence(listed)


def _two_pictures(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    return rng.choice((_which_picture, _colour_in_picture))(rng, scenes)


def _which_picture(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    index = rng.randrange(2)
    shape = rng.choice(scenes[index].items).shape
    if scenes[1 - index].with_shape(shape):
        return None
    named = _with_article(shape)
    asked = rng.choice(
        ("Which picture has {0}?", "Which picture shows {0}?", "In which picture is there {0}?")
    )
    return asked.format(named), f"The {ORDINALS[index]} picture has {named}."


def _colour_in_picture(rng: random.Random, scenes: tuple[Scene, ...]) -> Pair | None:
    index = rng.randrange(2)
    item = rng.choice(scenes[index].items)
    if len(scenes[index].with_shape(item.shape)) != 1:
        return None
    where = f"the {item.shape} in the {ORDINALS[index]} picture"
    asked = rng.choice(("What colour is {0}?", "Tell me the colour of {0}."))
    return asked.format(where), _sentence(f"{where} is {item.colour}")


def _sum(rng: random.Random) -> Pair:
    left, right = rng.randrange(10), rng.randrange(10)
    asked = rng.choice(
        ("What is {0} plus {1}?", "How much is {0} + {1}?", "{0} + {1} = ?", "Add {0} and {1}.")
    )
    return asked.format(left, right), f"{left} plus {right} is {left + right}."


def _repeat(rng: random.Random) -> Pair:
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, MAX_REPEAT_WORDS)))
    asked = rng.choice(("Repeat after me: {0}", "Please repeat: {0}", "Say this: {0}"))
    return asked.format(words), words


def _counting(rng: random.Random) -> Pair:
    steps = rng.randint(1, MAX_COUNT_STEPS)
    start = rng.randint(1, MAX_COUNT - steps)
    asked = rng.choice(
        ("Count from {0} to {1}.", "Please count from {0} to {1}.", "Count up from {0} to {1}.")
    )
    said = ", ".join(str(number) for number in range(start, start + steps + 1))
    return asked.format(start, start + steps), f"{said}."


PICTURE_RULES: dict[str, PictureRule] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "beside": _beside,
    "describe": _describe,
}
PAIR_RULES: dict[str, PictureRule] = {"two_pictures": _two_pictures}
TEXT_RULES: dict[str, TextRule] = {"sum": _sum, "repeat": _repeat, "counting": _counting}
FAMILIES = (*PICTURE_RULES, *PAIR_RULES, *TEXT_RULES)
_PAIR_MAX_SHAPES = 3
_TRIES = 8


def random_scenes(rng: random.Random, family: str) -> tuple[Scene, ...]:
    """Scenes of the number that the family asks about: 0, 1 or 2."""
    if family in TEXT_RULES:
        return ()
    if family in PAIR_RULES:
        return tuple(random_scene(rng, _PAIR_MAX_SHAPES) for _ in range(2))
    return (random_scene(rng),)


def ask(rng: random.Random, family: str, scenes: tuple[Scene, ...]) -> Example | None:
    """A question of the family about these scenes; None where none was found without a doubt."""
    if family in TEXT_RULES:
        question, answer = TEXT_RULES[family](rng)
        return Example(family, question, (), answer)
    rule = (PICTURE_RULES | PAIR_RULES)[family]
    for _ in range(_TRIES):
        pair = rule(rng, scenes)
        if pair is not None:
            return Example(family, pair[0], scenes, pair[1])
    return None


def random_example(rng: random.Random, family: str) -> Example:
    """A fresh example of the family."""
    while True:
        example = ask(rng, family, random_scenes(rng, family))
        if example is not None:
            return example
