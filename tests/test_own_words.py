"""Strangers' words: every fact can be drawn, no sentence comes from the templates, and the marks are right."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import evaluate as ev
from blip3o_mini import world
from blip3o_mini.evaluate import geneval, own_words
from blip3o_mini.world.parse import Reading
from blip3o_mini.world.questions import KINDS
from blip3o_mini.world.scene import is_heldout, make_object, make_scene
from blip3o_mini.world.wording import bare

PROMPTS, QUESTIONS = own_words.read_list()["prompts"], own_words.read_list()["questions"]
SCENES_EACH, WORDINGS = 25, 12  # scenes tried for every prompt, and wordings of each


def solutions(facts, rng, count=SCENES_EACH):
    """Scenes of just what a prompt asks for, in which every asserted fact holds; raises when there is none."""
    found = []
    for _ in range(20_000):
        wanted = [w for w in facts["include"] for _ in range(w["count"])]
        objects = [
            make_object(rng, int(cell), shape=w["class"], colour=w.get("color"), size=w.get("size"))
            for w, cell in zip(wanted, rng.permutation(9))
        ]
        scene = make_scene(objects, facts.get("background") or world.BACKGROUNDS[rng.integers(5)])
        if not geneval.failures(facts, Reading(scene.objects, scene.background, 0)):
            found.append(scene)
            if len(found) == count:
                return found
    raise AssertionError(f"nothing that shows {facts['prompt']!r} was found")


def wordings(scene, rng):
    """What the templates make of a scene: captions, requests, questions."""
    for _ in range(WORDINGS):
        for caption in (world.short_caption(scene, rng), world.long_caption(scene, rng)):
            request = world.draw_request(caption, rng)
            yield from (caption, request, world.loosely(request, rng))


def test_there_are_enough_of_all_kinds():
    for entries, name in ((PROMPTS, "prompt"), (QUESTIONS, "question")):
        assert len(entries) >= 100 and len({bare(one[name]) for one in entries}) == len(entries)
        assert min(Counter(one["split"] for one in entries).values()) >= 45
    assert {q["kind"] for q in QUESTIONS} == set(KINDS)
    assert min(Counter(p["tag"] for p in PROMPTS).values()) >= 10


@pytest.mark.parametrize("facts", PROMPTS, ids=lambda facts: bare(facts["prompt"])[:40])
def test_every_prompt_can_be_drawn_and_is_on_the_right_split(facts, rng):
    held = [is_heldout(scene) for scene in solutions(facts, rng)]
    assert all(held) if facts["split"] == "heldout" else not all(held)


@pytest.mark.parametrize("told", QUESTIONS, ids=lambda told: bare(told["question"])[:40])
def test_every_question_is_on_the_right_split_and_has_an_answer_of_its_kind(told):
    scene = own_words.scene_of(told["scene"])
    assert is_heldout(scene) == (told["split"] == "heldout")
    assert len({o.cell for o in scene.objects}) == len(scene.objects) <= world.MOST_OBJECTS
    answers = {
        "colour": {o.colour for o in scene.objects}, "shape": {o.shape for o in scene.objects},
        "size": {o.size for o in scene.objects}, "position": {o.position for o in scene.objects},
        "background": {scene.background}, "existence": {"yes", "no"}, "comparison": {"yes", "no"},
        "count": set(world.NUMBERS[:5]),
        "place": {f"{'an' if o.phrase()[0] in 'aeiou' else 'a'} {o.phrase()}" for o in scene.objects} | {"nothing"},
    }  # fmt: skip
    assert told["answers"][0] in answers[told["kind"]]
    if told["kind"] == "existence" and (named := re.search(rf"({'|'.join(world.COLOURS)}) (\w+)", told["question"])):
        there = {(o.colour, o.shape) for o in scene.objects}
        assert ((named[1], named[2]) in there) == (told["answers"][0] == "yes")


def test_no_prompt_comes_from_the_templates():
    rng = np.random.default_rng(7)
    made = {
        bare(text)
        for facts in PROMPTS
        for scene in solutions(facts, rng)
        for text in wordings(scene, rng)
    }  # fmt: skip
    assert len(made) > 50_000
    assert not made & {bare(facts["prompt"]) for facts in PROMPTS}
    assert "draw a red circle" in made  # the comparison would notice one


def test_no_question_comes_from_the_templates():
    rng = np.random.default_rng(8)
    made = {bare(question) for question, _ in world.facts()}
    for told in QUESTIONS:
        scene = own_words.scene_of(told["scene"])
        for _ in range(60):
            asked = [question for question, *_ in world.questions(scene, rng) + world.more_questions(scene, rng)]
            made |= {bare(text) for question in asked for text in (question, world.loosely(question, rng))}
    assert len(made) > 1500
    assert not made & {bare(told["question"]) for told in QUESTIONS}
    assert "what color is the circle" in made


class Stranger:
    """Draws and answers what the list itself says."""

    def __init__(self, is_right):
        self.is_right = is_right
        self.facts = {facts["prompt"]: facts for facts in PROMPTS}
        self.answers = {told["question"]: told["answers"] for told in QUESTIONS}

    def generate(self, prompts, *, generator):
        rng = np.random.default_rng(0)
        scenes = [solutions(self.facts[text], rng, 1)[0] for text in prompts]
        scenes = scenes if self.is_right else [make_scene([], "white")] * len(scenes)
        return [Image.fromarray(picture) for picture in world.render(scenes)]

    def answer_batch(self, images, questions):
        return [self.answers[text][-1].upper() + "." if self.is_right else "potato" for text in questions]


@pytest.mark.parametrize("is_right", [True, False])
def test_the_suites_tell_right_from_wrong(is_right):
    for name, splits in ev.evaluate(Stranger(is_right), ["own_prompts", "own_questions"])["suites"].items():
        assert {split["mean"] for split in splits.values()} == {float(is_right)}, name
        assert sum(split["n"] for split in splits.values()) == len(PROMPTS if name == "own_prompts" else QUESTIONS)


def test_fewer_samples_are_the_first_of_the_list():
    assert [facts["prompt"] for facts in own_words.own_prompts(3, is_heldout=True)] == [
        facts["prompt"] for facts in PROMPTS if facts["split"] == "heldout"
    ][:3]


def test_size_places_and_background_are_asserted():
    (o,) = make_scene(
        [make_object(np.random.default_rng(0), 2, shape="star", colour="red", size="small")], "mint"
    ).objects
    reading = Reading((o,), "mint", 0)
    star = {"class": "star", "count": 1}
    assert not geneval.failures({"include": [star | {"size": "small", "places": ["top right"]}]}, reading)
    assert not geneval.failures({"include": [star], "background": "mint"}, reading)
    for wrong in ({"size": "large"}, {"places": ["top", "left"]}, {"size": "small", "places": ["bottom"]}):
        (reason,) = geneval.failures({"include": [star | wrong]}, reading)
        assert "found small top right" in reason
    assert geneval.failures({"include": [star], "background": "navy"}, reading) == [
        "expected a navy background, found mint"
    ]
