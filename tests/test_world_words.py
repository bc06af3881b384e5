"""Words: a caption's objects one by one, strangers' wordings that keep the meaning, and fair questions."""

import re
from collections import Counter

import numpy as np
import pytest

from blip3o_mini import world
from blip3o_mini.world.scene import HELDOUT_RELATIONS, make_object, make_scene, relation

SCENES = 400


@pytest.fixture
def scenes(rng):
    return [world.sample_scene(rng) for _ in range(SCENES)]


def words_of(row):
    return {word for word, is_said in zip(world.CELL_WORDS, row, strict=True) if is_said}


def test_a_caption_says_of_each_object_what_it_says():
    rng = np.random.default_rng(0)
    circle, cross = make_object(rng, 0, shape="circle", colour="blue"), make_object(rng, 4, shape="cross", colour="red")
    scene = make_scene([circle, cross], "mint")
    rows = world.object_words("a tiny red cross to the left of the circle in blue", scene)
    assert [words_of(row) for row in rows] == [{"small", "red", "cross"}, {"blue", "circle"}, set(), set()]
    assert not world.object_words("three hearts", scene).any()  # not this scene
    riddle = world.object_words("the shape of a wheel in the color of the sea", make_scene([circle], "mint"))
    assert words_of(riddle[0]) == {"circle", "blue"}


def test_every_short_caption_names_its_objects(scenes, rng):
    for scene in scenes:
        rows = world.object_words(world.short_caption(scene, rng), scene)
        said = Counter(next(iter(words_of(row) & set(world.SHAPES))) for row in rows if row.any())
        assert said == Counter(o.shape for o in scene.objects)


def test_an_edit_names_what_is_new(scenes, rng):
    for scene in scenes[:100]:
        _, after, kind = world.edit(scene, rng)
        named = [words_of(row) for row in world.new_object_words(scene, after) if row.any()]
        assert len(named) == (0 if kind in ("remove", "background") else 1)
        assert all(any({o.shape, o.colour, o.size} == words for o in after.objects) for words in named)


def test_more_questions_have_true_answers(scenes, rng):
    kinds = Counter()
    for scene in scenes:
        for question, answer, kind in world.more_questions(scene, rng):
            kinds[kind] += 1
            names = re.findall(rf"the ((?:\w+ )?)({'|'.join(world.SHAPES)})", question)
            fitting = ([o for o in scene.objects if o.shape == s and c.strip() in ("", o.colour)] for c, s in names)
            named = [o for (o,) in fitting]  # each name fits one object
            first = named[0]
            if kind == "way":
                assert set(answer.split()) == relation(first, named[1])
            elif kind == "choice" and len(named) == 2:
                assert answer in relation(first, named[1]) and f"{answer} " in question
            elif kind == "choice":
                assert answer in (first.colour, first.size)
            else:
                is_larger = first.size == "large" and named[1].size == "small"
                is_smaller = first.size == "small" and named[1].size == "large"
                assert (answer == "yes") == (is_larger if "larger" in question else is_smaller)
    assert min(kinds[kind] for kind in ("way", "choice", "comparison")) > 50


def test_a_held_out_relation_is_never_denied(scenes, rng):
    """Where "left" is held out for two shapes, the answer would always be "no": that must not be taught."""
    words = {kind: options for kind, options in world.language.RELATION_WORDS.items()}
    for scene in scenes:
        for question, *_ in world.questions(scene, rng) + world.more_questions(scene, rng):
            for first, kind, last in HELDOUT_RELATIONS:
                for option in words[kind]:
                    assert not re.search(rf"{first} {option} the (\w+ )?{last}", question), question


def test_a_stranger_means_the_same(rng):
    for _ in range(300):
        assert "red" in world.loosely("what is at the left of the red circle", rng, slips=0)
    said = {world.loosely("is there a red circle?", rng, slips=0) for _ in range(400)}
    assert len(said) > 60 and all("red circle" in text for text in said)
    answers = {world.loosely("is the circle above the star?", rng, slips=0) for _ in range(300)}
    assert all(text.index("circle") < text.index("star") for text in answers)


def test_slips_keep_every_other_word(rng):
    sentence = "draw a purple triangle under the yellow star"
    for _ in range(200):
        text = world.wording._slip(sentence, rng)
        assert sum(a != b for a, b in zip(text.split(), sentence.split(), strict=True)) <= 1
        assert not set(text.split()) - set(sentence.split()) & set(world.COLOURS)
