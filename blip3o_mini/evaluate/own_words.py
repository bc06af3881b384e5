"""Suites in strangers' words: own_prompts and own_questions, from the hand-written list data/own_words.json.

Training never sees a sentence of the list (`world.wording` keeps them apart, and a test compares them): what is
measured is whether the model understands people and not only its own templates.
A prompt has the metadata of `geneval`, with size, places and background where it says them. Lesson 10.
"""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from ..world.scene import POSITIONS, Object, Scene, make_scene
from ..world.wording import OWN_WORDS
from .prompted import judge_prompts
from .score import Marks
from .trial import Tick
from .worded import Question, ask, common_answers

MOST = 60  # on one split


@lru_cache(maxsize=1)
def read_list() -> dict:
    """{"prompts": […], "questions": […]}; raises FileNotFoundError when the list is not there."""
    if not OWN_WORDS.exists():
        raise FileNotFoundError(f"{OWN_WORDS} is missing; the own_ suites need the data folder beside the package")
    return json.loads(OWN_WORDS.read_text(encoding="utf-8"))


def own_prompts(n: int, *, is_heldout: bool) -> list[dict]:
    """Metadata of the first n prompts of a split."""
    split = "heldout" if is_heldout else "seen"
    return [facts for facts in read_list()["prompts"] if facts["split"] == split][:n]


def own_questions(n: int, *, is_heldout: bool) -> list[Question]:
    """The first n questions of a split."""
    split = "heldout" if is_heldout else "seen"
    chosen = [told for told in read_list()["questions"] if told["split"] == split][:n]
    return [
        Question(
            scene_of(told["scene"]), told["question"], told["answers"][0], told["kind"], tuple(told["answers"][1:])
        )
        for told in chosen
    ]


def scene_of(told: dict) -> Scene:
    """{"background": "white", "objects": ["large red star top left", …]} as a scene."""
    objects = []
    for words in told["objects"]:
        size, colour, shape, position = words.split(maxsplit=3)
        row, column = divmod(POSITIONS.index(position), 3)
        objects.append(Object(shape, colour, size, row, column))
    return make_scene(objects, told["background"])


def run_own_prompts(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Pictures of prompts as strangers type them."""
    return judge_prompts(model, own_prompts(n, is_heldout=is_heldout), rng, seed, tick)


def run_own_questions(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Questions about pictures as strangers ask them. Baseline: the most common answer of each kind."""
    asked = own_questions(n, is_heldout=is_heldout)
    return Marks(ask(model, asked, tick), common_answers(asked))
