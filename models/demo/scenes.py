"""Scenes of coloured shapes: what stands where, and the picture of it.

Run as a program it writes pictures and a JSONL file of questions and answers.
"""

import argparse
import json
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 30),
    "green": (30, 150, 50),
    "blue": (35, 60, 215),
    "yellow": (240, 220, 30),
    "purple": (135, 40, 165),
    "orange": (250, 135, 15),
    "cyan": (40, 205, 220),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
BACKGROUNDS = ((245, 245, 245), (205, 205, 205), (125, 125, 125), (55, 55, 55), (10, 10, 10))
SIZE_PX = 112
MAX_SHAPES = 4

# Items stand on a loose grid of cells, in columns of their own: "left of" is never in doubt.
CELL_PX = 28
_SIZES = (0.68, 0.92)
_SHIFT = 0.1
_COLOUR_JITTER = 12


@dataclass(frozen=True, slots=True)
class Item:
    """One shape. Centre and size are counted in cells of the picture's grid."""

    colour: str
    shape: str
    x: float
    y: float
    size: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows, its items from left to right. No two items share colour and shape."""

    items: tuple[Item, ...]
    background: tuple[int, int, int]
    noise: int
    width_px: int
    height_px: int
    cell_px: int
    paint_seed: int

    def with_shape(self, shape: str) -> list[Item]:
        return [item for item in self.items if item.shape == shape]

    def with_colour(self, colour: str) -> list[Item]:
        return [item for item in self.items if item.colour == colour]


def random_scene(rng: random.Random, max_shapes: int = MAX_SHAPES) -> Scene:
    """Draw a scene of 1 to max_shapes shapes; one in ten has another size than 112 x 112."""
    columns, rows, cell_px = _grid(rng)
    weights = (20, 34, 30, 16)[: min(max_shapes, columns)]
    count = rng.choices(range(1, len(weights) + 1), weights)[0]
    return Scene(
        items=_place(rng, _kinds(rng, count), columns, rows),
        background=rng.choice(BACKGROUNDS),
        noise=rng.choice((0, 0, 8, 16, 24)),
        width_px=columns * cell_px,
        height_px=rows * cell_px,
        cell_px=cell_px,
        paint_seed=rng.getrandbits(32),
    )


def _kinds(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Colour and shape of each item; one scene in four repeats a colour or a shape on purpose."""
    colours, shapes = list(COLOURS), list(SHAPES)
    habit = rng.random()
    if habit < 0.15:
        shapes = [rng.choice(shapes)]
    elif habit < 0.25:
        colours = [rng.choice(colours)]
    return rng.sample([(colour, shape) for colour in colours for shape in shapes], count)


def _place(rng: random.Random, kinds: list[tuple[str, str]], columns: int, rows: int) -> tuple[Item, ...]:
    """Give every kind a column of its own and any row, a little off the middle of the cell."""
    chosen = sorted(rng.sample(range(columns), len(kinds)))
    return tuple(
        Item(
            colour,
            shape,
            x=round(column + 0.5 + rng.uniform(-_SHIFT, _SHIFT), 3),
            y=round(rng.randrange(rows) + 0.5 + rng.uniform(-_SHIFT, _SHIFT), 3),
            size=round(rng.uniform(*_SIZES), 3),
        )
        for (colour, shape), column in zip(kinds, chosen, strict=True)
    )


def _grid(rng: random.Random) -> tuple[int, int, int]:
    """Columns, rows and pixels of a cell."""
    if rng.random() < 0.9:
        return SIZE_PX // CELL_PX, SIZE_PX // CELL_PX, CELL_PX
    return rng.choice(((4, 4, 2 * CELL_PX), (4, 4, 40), (8, 2, CELL_PX), (2, 8, CELL_PX)))


def render(scene: Scene) -> Image.Image:
    """Paint the scene; the same scene always gives the same pixels."""
    rng = np.random.default_rng(scene.paint_seed)
    image = Image.new("RGB", (scene.width_px, scene.height_px), scene.background)
    if scene.noise:
        image = _noisy(image, scene.noise, rng)
    draw = ImageDraw.Draw(image)
    for item in scene.items:
        jitter = rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, 3)
        red, green, blue = np.clip(np.array(COLOURS[item.colour]) + jitter, 0, 255).tolist()
        _paint(draw, item, scene, (red, green, blue))
    return image


def _noisy(image: Image.Image, noise: int, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.int16)
    shift = rng.integers(-noise, noise + 1, pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels + shift, 0, 255).astype(np.uint8))


def _paint(draw: ImageDraw.ImageDraw, item: Item, scene: Scene, fill: tuple[int, int, int]) -> None:
    x, y = item.x * scene.cell_px, item.y * scene.cell_px
    half = item.size * scene.cell_px / 2
    if item.shape == "circle":
        draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)
    elif item.shape == "square":
        side = half * 0.9
        draw.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif item.shape == "triangle":
        draw.polygon(((x, y - half), (x - half, y + half), (x + half, y + half)), fill=fill)
    elif item.shape == "star":
        draw.polygon(_star(x, y, half * 1.1), fill=fill)
    else:
        arm = half / 3
        draw.rectangle((x - half, y - arm, x + half, y + arm), fill=fill)
        draw.rectangle((x - arm, y - half, x + arm, y + half), fill=fill)


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    points = []
    for step in range(10):
        reach = radius if step % 2 == 0 else radius * 0.4
        angle = math.pi * step / 5
        points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return points


def write_examples(folder: Path, seed: int, count: int) -> None:
    """Write count examples, the families in turn: PNG files and questions.jsonl."""
    from models.demo.questions import FAMILIES, random_example

    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as lines:
        for index in range(count):
            example = random_example(rng, FAMILIES[index % len(FAMILIES)])
            names = [f"{index:05d}_{number}.png" for number in range(len(example.scenes))]
            for name, scene in zip(names, example.scenes, strict=True):
                render(scene).save(folder / name)
            line = {
                "family": example.family,
                "question": example.question,
                "images": names,
                "answer": example.answer,
            }
            lines.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=90)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write_examples(arguments.out, arguments.seed, arguments.count)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
