"""Conversations as trees of tokens: one opening, several questions that do not see each other.

    <|im_start|>user PICTURE -+- question 1 <|im_end|> ... answer 1 <|im_end|>
                              +- question 2 <|im_end|> ... answer 2 <|im_end|>

A picture is encoded and its tokens are read once for all its questions. Every path from the
opening to the end of a branch has the tokens and positions of an ordinary conversation.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from models.demo.folder import IMAGE_PAD, TURN_END, TURN_START, VISION_END, VISION_START
from models.demo.pictures import MERGE, Grid, to_patches
from models.demo.questions import PAIR_RULES, PICTURE_RULES, TEXT_RULES, Example, ask, random_scenes
from models.demo.scenes import Scene, render

IGNORED = -100
SHARED = 0
SYSTEM_PROMPT = "You are a helpful assistant."
_BRANCHES = {"picture": 4, "pair": 3, "text": 3}
_KINDS = {"picture": tuple(PICTURE_RULES), "pair": tuple(PAIR_RULES), "text": tuple(TEXT_RULES)}


@dataclass(slots=True)
class Tree:
    """Tokens with their 3D positions, branch (0: shared by all) and label (the token itself)."""

    tokens: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    families: list[str] = field(default_factory=list)
    pictures: list[tuple[int, Grid, NDArray[np.uint8]]] = field(default_factory=list)
    next_position: int = 0

    def add_text(self, tokens: list[int], branch: int, learn: bool = False) -> None:
        start = self.next_position
        self.tokens += tokens
        self.positions += [(start + step,) * 3 for step in range(len(tokens))]
        self.branches += [branch] * len(tokens)
        self.labels += tokens if learn else [IGNORED] * len(tokens)
        self.next_position += len(tokens)

    def add_picture(self, pad: int, scene: Scene) -> None:
        grid, patches = to_patches(render(scene))
        rows, columns = grid[0] // MERGE, grid[1] // MERGE
        start = self.next_position
        self.pictures.append((len(self.tokens), grid, patches))
        self.tokens += [pad] * (rows * columns)
        self.positions += [
            (start, start + row, start + column) for row in range(rows) for column in range(columns)
        ]
        self.branches += [SHARED] * (rows * columns)
        self.labels += [IGNORED] * (rows * columns)
        self.next_position += max(rows, columns)


class TreeWriter:
    """Turns examples into trees, in the words of the chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._pad = tokenizer.get_vocab()[IMAGE_PAD]
        self._cache: dict[str, list[int]] = {}

    def random_tree(self, rng: random.Random, weights: Mapping[str, float]) -> Tree:
        """A tree of families drawn by weight; now and then another form of conversation."""
        kinds = list(_KINDS)
        shares = [sum(weights[name] for name in _KINDS[kind]) / _BRANCHES[kind] for kind in kinds]
        kind = rng.choices(kinds, shares)[0]
        families = _KINDS[kind]
        examples: list[Example] = []
        while not examples:
            scenes = random_scenes(rng, families[0])
            drawn = rng.choices(families, [weights[name] for name in families], k=_BRANCHES[kind])
            asked = [ask(rng, family, scenes) for family in drawn]
            examples = list({one.question: one for one in asked if one is not None}.values())
        form = rng.random()
        if form < 0.08:
            return self.text_first(examples[0])
        return self.write(examples, in_turns=form < 0.16, system=rng.random() < 0.05)

    def write(self, examples: list[Example], in_turns: bool = False, system: bool = False) -> Tree:
        """Examples about the same scenes, side by side or (in_turns) one after the other."""
        tree = Tree()
        self._open(tree, system)
        for scene in examples[0].scenes:
            self._add_scene(tree, scene)
        opening = tree.next_position
        for index, example in enumerate(examples):
            branch = SHARED if in_turns else index + 1
            if not in_turns:
                tree.next_position = opening
            elif index:
                tree.add_text(self._tokens(f"\n{TURN_START}user\n"), branch)
            tree.add_text(self._tokens(example.question), branch)
            self._answer(tree, example, branch)
        return tree

    def text_first(self, example: Example) -> Tree:
        """A question that stands before its pictures."""
        tree = Tree()
        self._open(tree, system=False)
        tree.add_text(self._tokens(example.question), SHARED)
        for scene in example.scenes:
            self._add_scene(tree, scene)
        self._answer(tree, example, SHARED)
        return tree

    def _open(self, tree: Tree, system: bool) -> None:
        if system:
            said = f"{TURN_START}system\n{SYSTEM_PROMPT}{TURN_END}\n"
            tree.add_text(self._tokens(said), SHARED)
        tree.add_text(self._tokens(f"{TURN_START}user\n"), SHARED)

    def _add_scene(self, tree: Tree, scene: Scene) -> None:
        tree.add_text(self._tokens(VISION_START), SHARED)
        tree.add_picture(self._pad, scene)
        tree.add_text(self._tokens(VISION_END), SHARED)

    def _answer(self, tree: Tree, example: Example, branch: int) -> None:
        tree.families.append(example.family)
        tree.add_text(self._tokens(f"{TURN_END}\n{TURN_START}assistant\n"), branch)
        tree.add_text(self._tokens(f"{example.answer}{TURN_END}"), branch, learn=True)

    def _tokens(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer.encode(text)
        return self._cache[text]
