"""Trees packed into rows of one length, ready for a training step."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.demo.pictures import MERGE, Grid
from models.demo.questions import FAMILIES, random_example
from models.demo.trees import IGNORED, Tree, TreeWriter

ROW_TOKENS = 256
_EMPTY = -1


@dataclass(frozen=True, slots=True)
class PictureGroup:
    """Pictures of one grid: patches (pictures, patches, 588) and each one's place in the rows."""

    grid: Grid
    patches: NDArray[np.uint8]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens (rows, length); a token sees its own tree's opening and its own branch.

    labels hold the token to be predicted at each place (IGNORED: none); answers numbers the
    answer that the label belongs to, and families names each answer's family.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    trees: NDArray[np.int64]
    branches: NDArray[np.int64]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    families: tuple[str, ...]
    pictures: tuple[PictureGroup, ...]

    def mask(self) -> torch.Tensor:
        """Who sees whom, (rows, 1, length, length), true where the row's token sees the column's."""
        trees, branches = torch.from_numpy(self.trees), torch.from_numpy(self.branches)
        length = trees.shape[1]
        same_tree = trees[:, :, None] == trees[:, None, :]
        reaches = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return (same_tree & reaches & causal).unsqueeze(1)


def random_batch(writer: TreeWriter, seed: str, rows: int, weights: Mapping[str, float]) -> Batch:
    """As many random trees as fit into the rows."""
    rng = random.Random(seed)
    packed: list[list[Tree]] = [[] for _ in range(rows)]
    room = [ROW_TOKENS] * rows
    misses = 0
    while misses < 3:
        tree = writer.random_tree(rng, weights)
        fits = [index for index in range(rows) if room[index] >= len(tree.tokens)]
        if fits:
            packed[fits[0]].append(tree)
            room[fits[0]] -= len(tree.tokens)
        misses += not fits
    return pack(packed, ROW_TOKENS)


def held_out_batch(writer: TreeWriter, seed: int, count: int) -> Batch:
    """Count single questions of each family, one conversation a row."""
    rng = random.Random(seed)
    rows = [[writer.write([random_example(rng, family)])] for family in FAMILIES for _ in range(count)]
    return pack(rows, max(len(row[0].tokens) for row in rows))


def pack(rows: list[list[Tree]], length: int) -> Batch:
    """Lay the trees of each row one after the other."""
    shape = (len(rows), length)
    tokens, branches = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    trees = np.full(shape, _EMPTY, np.int64)
    labels, answers = np.full(shape, IGNORED, np.int64), np.full(shape, IGNORED, np.int64)
    positions = np.zeros((3, *shape), np.int64)
    families: list[str] = []
    pictures: dict[Grid, list[tuple[int, NDArray[np.uint8]]]] = {}
    for row, members in enumerate(rows):
        start = 0
        for number, tree in enumerate(members):
            span = slice(start, start + len(tree.tokens))
            tokens[row, span], trees[row, span] = tree.tokens, number
            branches[row, span] = tree.branches
            positions[:, row, span] = np.array(tree.positions).T
            # The token before a label predicts it; an answer never opens a tree.
            shifted = slice(span.start, span.stop - 1)
            labels[row, shifted] = tree.labels[1:]
            answers[row, shifted] = _answer_numbers(tree, len(families))[1:]
            families += tree.families
            for offset, grid, patches in tree.pictures:
                pictures.setdefault(grid, []).append((row * length + start + offset, patches))
            start = span.stop
    return Batch(tokens, positions, trees, branches, labels, answers, tuple(families), _groups(pictures))


def _answer_numbers(tree: Tree, first: int) -> list[int]:
    numbers, current, before = [], first - 1, IGNORED
    for label in tree.labels:
        current += label != IGNORED and before == IGNORED
        numbers.append(current if label != IGNORED else IGNORED)
        before = label
    return numbers


def _groups(
    pictures: dict[Grid, list[tuple[int, NDArray[np.uint8]]]],
) -> tuple[PictureGroup, ...]:
    groups = []
    for grid, members in pictures.items():
        starts = np.array([start for start, _ in members], np.int64)
        groups.append(PictureGroup(grid, np.stack([patches for _, patches in members]), starts))
    return tuple(groups)


def num_tokens(grid: Grid) -> int:
    """Language tokens that a picture of this grid takes."""
    return grid[0] * grid[1] // MERGE**2
