"""What a prompt asserts, when a picture passes, and how sure a score is."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import evaluate as ev
from blip3o_mini import world
from blip3o_mini.evaluate import geneval, pictured, prompted, score, trial, worded
from blip3o_mini.world import Object, Scene, render
from blip3o_mini.world.language import Detail
from blip3o_mini.world.parse import Reading
from blip3o_mini.world.scene import HELDOUT_PAIRS, is_heldout, relation, sample_scene


def picture(scene):
    return Image.fromarray(render([scene])[0])


def reading(*objects, background="white", unreadable=0):
    return Reading(tuple(sorted(objects, key=lambda o: o.cell)), background, unreadable)


# ---------------------------------------------------------------- prompts and splits


@pytest.mark.parametrize("held", [True, False])
def test_every_prompt_is_on_its_side_of_the_split(held):
    rng = np.random.default_rng(0)
    for facts in geneval.prompts(300, rng, is_heldout=held):
        assert geneval.asserts_heldout(facts["include"]) == held, facts
        if not held:  # a scene with these facts and nothing else is one that training may show
            objects = [(w["class"], w["color"]) for w in facts["include"] if "color" in w]
            assert not HELDOUT_PAIRS & set(objects)
    for facts in prompted.knowledge_prompts(100, rng, is_heldout=held):
        assert geneval.asserts_heldout(facts["include"]) == held
    for _, scene, _ in prompted.dense_prompts(40, rng, is_heldout=held):
        assert is_heldout(scene) == held
    for before, _, after, kind in pictured.edit_items(60, rng, heldout=held):
        assert is_heldout(after) == held
        assert held or not is_heldout(before)
        assert kind in world.EDIT_KINDS
    for q in (
        *worded.vqa_questions(45, rng, is_heldout=held),
        *worded.hallucination_questions(20, rng, is_heldout=held),
    ):
        assert is_heldout(q.scene) == held
    for scene in worded.classify_scenes(40, rng, is_heldout=held):
        assert is_heldout(scene) == held


@pytest.mark.parametrize(
    ("include", "held"),
    [
        ([{"class": "circle", "count": 1}], False),
        ([{"class": "circle", "count": 1, "color": "purple"}], True),
        ([{"class": "heart", "count": 3}], True),
        ([{"class": "heart", "count": 2}], False),
        ([{"class": "triangle", "count": 1}, {"class": "star", "count": 1, "position": ["left of", 0]}], True),
        ([{"class": "star", "count": 1}, {"class": "triangle", "count": 1, "position": ["right of", 0]}], True),
        ([{"class": "star", "count": 1}, {"class": "triangle", "count": 1, "position": ["left of", 0]}], False),
        ([{"class": "square", "count": 1}, {"class": "heart", "count": 1, "position": ["below", 0]}], True),
        ([{"class": "square", "count": 1}, {"class": "heart", "count": 1, "position": ["above", 0]}], False),
    ],
)
def test_what_a_prompt_asserts(include, held):
    assert geneval.asserts_heldout(include) == held


def test_prompts_read_like_a_persons():
    rng = np.random.default_rng(0)
    said = {facts["prompt"] for facts in geneval.prompts(300, rng, is_heldout=False)}
    assert {"a star", "two squares", "a circle and a heart"} <= said
    assert any(re.fullmatch(r"an? \w+ \w+ (to the )?(left|right) of an? \w+ \w+", text) for text in said)
    assert not any(re.search(r"\ba orange|\ban [^o]|crosss", text) for text in said)
    facts = [{"class": "cross", "count": 3, "color": "orange"}]
    assert geneval.wording(facts, rng) == "three orange crosses"
    assert geneval.wording([{"class": "cross", "count": 1, "color": "orange"}], rng) == "an orange cross"


def test_all_split_sizes_and_categories():
    for n in (1, 5, 7):
        assert len(geneval.prompts(n, np.random.default_rng(0), is_heldout=True)) == n
    marks = score.Marks({"a": [1.0, 0.0], "b": [1.0]}, 0.1, is_mean_of_categories=True).summary()
    assert marks["mean"] == 0.75
    assert marks["n"] == 3


# ---------------------------------------------------------------- judging

RED, BLUE = Object("circle", "red", "large", 0, 0), Object("circle", "blue", "small", 2, 2)
STAR = Object("star", "green", "large", 1, 1)
TWO = {"tag": "counting", "include": [{"class": "circle", "count": 2}], "exclude": [{"class": "circle", "count": 3}]}


def position(name, target="circle", shape="star", **more):
    return {"tag": "position", "include": [{"class": target, "count": 1, **more},
                                           {"class": shape, "count": 1, "position": [name, 0]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "objects", "passes"),
    [
        (TWO, [RED, BLUE], True),
        (TWO, [RED, BLUE, STAR], True),
        (TWO, [RED], False),
        (TWO, [RED, BLUE, Object("circle", "pink", "small", 0, 2)], False),
        ({"include": [{"class": "circle", "count": 1, "color": "blue"}]}, [RED, BLUE], True),
        ({"include": [{"class": "circle", "count": 1, "color": "green"}]}, [RED, STAR], False),
        ({"include": [{"class": "circle", "count": 2, "color": "red"}]}, [RED, BLUE], False),
        ({"include": [{"class": "circle", "count": 1}, {"class": "star", "count": 1}]}, [RED], False),
        (position("right of"), [RED, STAR], True),
        (position("below"), [RED, STAR], True),
        (position("left of"), [RED, STAR], False),
        (position("left of"), [BLUE, STAR], True),
        (position("left of", color="red"), [RED, BLUE, STAR], False),
        (position("above"), [Object("circle", "red", "large", 1, 0), STAR], False),  # strictly: the same row
        (position("above"), [STAR], False),
    ],
)
def test_geneval_judges_every_fact(facts, objects, passes):
    assert (geneval.failures(facts, reading(*objects)) == []) == passes


def test_nothing_is_counted_beside_a_patch_that_cannot_be_read():
    assert geneval.failures(TWO, reading(RED, BLUE, unreadable=1)) != []
    assert geneval.failures(position("right of"), reading(RED, STAR, unreadable=1)) == []


def test_dense_facts_are_judged_one_by_one():
    scene = Scene((RED, STAR), "mint")
    facts = prompted.facts_that_hold(scene, Detail(), reading(RED, STAR, background="mint"))
    assert prompted.share(facts) == 1
    assert sum(map(len, facts.values())) == 7
    moved = Object("circle", "red", "small", 0, 2)
    facts = prompted.facts_that_hold(scene, Detail(), reading(moved, STAR, background="navy"))
    assert facts == {"object": [True, True], "size": [False, True], "position": [False, True], "background": [False]}
    assert prompted.share(prompted.facts_that_hold(scene, Detail(), reading())) == 0


def test_dense_pairs_equal_objects_the_best_way():
    twins = Scene((Object("star", "red", "large", 0, 0), Object("star", "red", "small", 2, 2)), "white")
    facts = prompted.facts_that_hold(twins, Detail(), reading(*twins.objects[::-1]))
    assert prompted.share(facts) == 1
    facts = prompted.facts_that_hold(twins, Detail(), reading(twins.objects[1]))
    assert facts["object"] == facts["size"] == facts["position"] == [False, True]


def test_dense_prompts_tell_4_to_8_facts():
    for _, scene, detail in prompted.dense_prompts(12, np.random.default_rng(0), is_heldout=True):
        facts = prompted.facts_that_hold(scene, detail, Reading(scene.objects, scene.background, 0))
        assert 4 <= sum(map(len, facts.values())) <= 8
        assert prompted.share(facts) == 1


def test_an_edit_must_leave_the_rest_alone():
    before = Scene((RED, STAR), "mint")
    assert trial.shows(reading(RED, STAR, background="mint"), before)
    assert not trial.shows(reading(RED, background="mint"), before)
    assert not trial.shows(reading(RED, STAR, background="cream"), before)
    assert not trial.shows(reading(RED, STAR, background="mint", unreadable=1), before)
    assert not trial.shows(reading(RED, STAR, BLUE, background="mint"), before)


def test_captions_are_read_back():
    for k in range(50):
        scene = sample_scene(np.random.default_rng(k), allow_heldout=True)
        caption = world.long_caption(scene, np.random.default_rng(k))
        assert worded.is_caption_of(caption, scene)
        other = sample_scene(np.random.default_rng(k + 1000), allow_heldout=True)
        assert not worded.is_caption_of(world.long_caption(other), scene)
    assert not worded.is_caption_of("", scene)


def test_answers_are_compared_without_case_and_full_stop():
    assert worded.normal("  Top  Left. ") == "top left"
    assert worded.normal("") == ""


def test_hallucination_is_balanced():
    asked = worded.hallucination_questions(30, np.random.default_rng(0), is_heldout=False)
    assert [q.answer for q in asked].count("yes") == 15


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("mean", "n", "low", "high"), [(0.5, 100, 0.4038, 0.5962), (1.0, 10, 0.7225, 1.0), (0.0, 10, 0.0, 0.2775)]
)
def test_wilson_known_values(mean, n, low, high):
    np.testing.assert_allclose(score.wilson(mean, n), (low, high), atol=1e-4)


def test_intervals_cover_the_truth():
    """95 % intervals should hold the true mean about 95 % of the time."""
    rng = np.random.default_rng(0)
    covered = {"proportion": 0, "fraction": 0, "mean of means": 0}
    truth = np.array([0.95, 0.5, 0.8])
    for _ in range(300):
        _, low, high = score.interval((rng.random(60) < 0.8).astype(float).tolist())
        covered["proportion"] += low <= 0.8 <= high
        _, low, high = score.interval(rng.beta(4, 1, 60).tolist())
        covered["fraction"] += low <= 0.8 <= high
        parts = [score.interval((rng.random(40) < p).astype(float).tolist()) for p in truth]
        both = score.mean_of_means(parts)
        covered["mean of means"] += both["low"] <= truth.mean() <= both["high"]
    for name, times in covered.items():
        assert 0.90 <= times / 300 <= 0.99, (name, times / 300)


def test_a_perfect_score_still_has_an_interval():
    for scores in ([1.0] * 20, [0.5] * 20):
        assert score.interval(scores)[1] < score.interval(scores)[0]
    perfect = score.mean_of_means([score.interval([1.0] * 10)] * 6)
    assert 0.8 < perfect["low"] < perfect["mean"] == 1


# ---------------------------------------------------------------- files


def test_results_in_the_public_layout(tmp_path):
    metadata = [{**TWO, "prompt": "two circles"}, {**position("right of"), "prompt": "a star right of a circle"}]
    right, empty = picture(Scene((RED, STAR, BLUE), "mint")), picture(Scene((), "white"))
    ev.write_results(tmp_path, metadata, [[right, empty]] * 2)
    assert (tmp_path / "00001" / "samples" / "0001.png").is_file()
    assert json.loads((tmp_path / "00000" / "metadata.jsonl").read_text()) == metadata[0]
    rows = ev.score_results(tmp_path)
    assert [row["correct"] for row in rows] == [True, False] * 2
    assert {"filename", "tag", "prompt", "correct", "reason"} <= set(rows[0])
    assert "found 0" in rows[1]["reason"]


def test_damaged_result_folders_are_sentences(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"00000/metadata\.jsonl"):
        ev.score_results(tmp_path)
    (tmp_path / "00000").mkdir()
    for content in ("{", "{}", '{"tag": "colors", "prompt": "x", "include": [{"class": "dog", "count": 1}]}'):
        (tmp_path / "00000" / "metadata.jsonl").write_text(content)
        with pytest.raises(ValueError, match="does not hold GenEval metadata"):
            ev.score_results(tmp_path)


def test_relations_are_strict():
    above, beside = Object("star", "red", "large", 0, 0), Object("heart", "red", "large", 0, 2)
    assert relation(above, beside) == {"left"}
