"""Evaluation: an oracle gets everything right, noise nothing, and guessing the baseline.

The oracle looks its answers up in the very questions that the suites make; so it proves that every question
has an answer that passes, and that its reading is right.
"""

import json

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import evaluate as ev
from blip3o_mini import world
from blip3o_mini.evaluate import geneval, pictured, prompted, trial, worded
from blip3o_mini.world import Scene, render
from blip3o_mini.world.parse import Reading, parse
from blip3o_mini.world.scene import make_object, make_scene, sample_scene

SMALL = 24


def picture(scene):
    return Image.fromarray(render([scene])[0])


def solve(facts, rng):
    """A scene in which everything that a prompt's metadata assert is true."""
    while True:
        wanted = [w for w in facts["include"] for _ in range(w["count"])]
        cells = rng.permutation(9)
        objects = [
            make_object(rng, int(cell), shape=w["class"], colour=w.get("color")) for w, cell in zip(wanted, cells)
        ]
        scene = make_scene(objects, world.BACKGROUNDS[rng.integers(5)])
        if not geneval.failures(facts, Reading(scene.objects, scene.background, 0)):
            return scene


class Oracle:
    """Knows every question of every suite, and what is right."""

    def __init__(self, n=SMALL, seed=0):
        self.scenes, self.edits, self.answers, self.facts = {}, {}, {}, {}
        for split in ev.SPLITS:
            held = split == "heldout"

            def rng(name, split=split):
                return ev.generator(name, split, seed)

            metadata = geneval.prompts(n, rng("geneval"), is_heldout=held)
            metadata += geneval.prompts(6 * n, rng("diversity"), is_heldout=held)
            metadata += prompted.knowledge_prompts(n, rng("knowledge"), is_heldout=held)
            self.facts |= {facts["prompt"]: facts for facts in metadata}
            for prompt, scene, _ in prompted.dense_prompts(n, rng("dense"), is_heldout=held):
                self.scenes[prompt] = scene
            for before, instruction, after, _ in pictured.edit_items(n, rng("edit"), heldout=held):
                self.edits[picture(before).tobytes(), instruction] = after
            asked = worded.vqa_questions(n, rng("vqa"), is_heldout=held)
            asked += worded.hallucination_questions(n, rng("hallucination"), is_heldout=held)
            asked += worded.text_questions(n, rng("text"), is_heldout=held)
            for q in asked:
                self.answers[picture(q.scene).tobytes() if q.scene else None, q.text] = q.answer

    def generate(self, prompts, *, generator):
        drawn = []
        for prompt, g in zip(prompts, generator, strict=True):
            rng = np.random.default_rng(g.initial_seed())
            drawn.append(self.scenes[prompt] if prompt in self.scenes else solve(self.facts[prompt], rng))
        return [picture(scene) for scene in drawn]

    def edit_batch(self, images, instructions, *, generator):
        assert len(generator) == len(images)
        pairs = zip(images, instructions, strict=True)
        return [picture(self.edits[image.tobytes(), text]) for image, text in pairs]

    def reconstruct(self, images, *, seed):
        return list(images)

    def answer_batch(self, images, questions):
        pairs = zip(images, questions, strict=True)
        return [self.answers[image and image.tobytes(), text].upper() + " ." for image, text in pairs]

    def caption_batch(self, images, style):
        assert style == "long"
        return [world.long_caption(self.see(image)).capitalize() for image in images]

    def classify_batch(self, images, labels):
        scores = []
        for image in images:
            o = self.see(image).objects[0]
            scores.append({label: float(label in (o.shape, f"{o.colour} {o.shape}")) for label in labels})
        return scores

    def see(self, image):
        return Scene(tuple(parse(image)), world.parse_background(image))


class Guesser(Oracle):
    """Draws a random scene whatever is asked, and says something that is often right."""

    def __init__(self, n=SMALL):
        super().__init__(n)
        self.rng = np.random.default_rng(1)

    def generate(self, prompts, **options):
        return [picture(sample_scene(self.rng, allow_heldout=True)) for _ in prompts]

    def edit_batch(self, images, instructions, **options):
        return list(images)

    def reconstruct(self, images, **options):
        return self.generate(images)

    def answer_batch(self, images, questions):
        said = super().answer_batch(images, questions)
        return [said[k] for k in self.rng.permutation(len(said))]

    def caption_batch(self, images, style):
        said = super().caption_batch(images, style)
        return said[1:] + said[:1]

    def classify_batch(self, images, labels):
        return [dict(zip(labels, self.rng.random(len(labels)))) for _ in images]


class Noise(Guesser):
    """Draws noise and talks nonsense."""

    def generate(self, prompts, **options):
        return [Image.fromarray(self.rng.integers(0, 256, (72, 72, 3)).astype(np.uint8)) for _ in prompts]

    edit_batch = reconstruct = lambda self, images, *_, **__: self.generate(images)

    def answer_batch(self, images, questions):
        return ["potato"] * len(images)

    def caption_batch(self, images, style):
        return [""] * len(images)


@pytest.fixture(scope="module")
def oracle_scores():
    return ev.evaluate(Oracle(), samples=SMALL)


def test_the_oracle_is_always_right(oracle_scores):
    assert tuple(oracle_scores["suites"]) == ev.SUITES
    for name, splits in oracle_scores["suites"].items():
        for split, result in splits.items():
            if name == "diversity":  # two random scenes are the same once in a thousand pairs
                assert result["mean"] > 0.97
                continue
            assert result["mean"] == result["high"] == 1, (name, split)
            assert all(category["mean"] == 1 for category in result["categories"].values()), (name, split)


def test_the_shape_of_the_result(oracle_scores):
    assert set(oracle_scores) == {"checkpoint", "suites"}
    for name, splits in oracle_scores["suites"].items():
        assert set(splits) == {"heldout", "seen"}
        for result in splits.values():
            assert set(result) == {"mean", "low", "high", "n", "baseline", "categories"}
            assert result["low"] <= result["mean"] <= result["high"]
            assert result["n"] == SMALL, name
            assert 0 <= result["baseline"] < 0.6
            for category in result["categories"].values():
                assert set(category) == {"mean", "low", "high", "n"}
    assert tuple(oracle_scores["suites"]["geneval"]["seen"]["categories"]) == geneval.TAGS
    assert json.loads(json.dumps(oracle_scores)) == oracle_scores


def test_noise_scores_nothing():
    suites = [name for name in ev.SUITES if name != "classify"]  # choosing a label at random is sometimes right
    for name, splits in ev.evaluate(Noise(), suites, samples=SMALL)["suites"].items():
        assert {result["mean"] for result in splits.values()} == {0}, name


def test_guessing_scores_about_the_baseline():
    n = 120
    guesser = Guesser(n)
    for name in ("geneval", "dense", "knowledge", "classify", "edit", "reconstruct", "caption", "hallucination"):
        for split, result in ev.evaluate(guesser, [name], samples=n)["suites"][name].items():
            assert result["low"] - 0.05 <= result["baseline"] <= result["high"] + 0.05, (name, split)
    for name in ("vqa", "text"):  # shuffled answers are often of another kind, so they are worse than that
        for result in ev.evaluate(guesser, [name], samples=n)["suites"][name].values():
            assert 0 < result["mean"] < result["baseline"]


def test_always_the_same_picture_has_no_diversity():
    class Stubborn(Oracle):
        def generate(self, prompts, *, generator):
            return super().generate(prompts, generator=[generator[0].manual_seed(0)] * len(prompts))

    assert ev.evaluate(Stubborn(), ["diversity"], samples=4)["suites"]["diversity"]["seen"]["mean"] == 0


def test_scores_repeat_and_do_not_depend_on_the_batch_size(monkeypatch, oracle_scores):
    class Careless(Oracle):
        def generate(self, prompts, *, generator):
            return [
                picture(sample_scene(np.random.default_rng(g.initial_seed() % 3), count=1)) for g in generator
            ]  # fmt: skip

    suites = ["geneval", "dense", "diversity"]
    first = ev.evaluate(Careless(), suites, samples=SMALL)
    assert ev.evaluate(Careless(), suites, samples=SMALL) == first
    monkeypatch.setattr(trial.batches, "__defaults__", (5,))
    assert ev.evaluate(Careless(), suites, samples=SMALL) == first
    other = ev.evaluate(Oracle(seed=1), ["vqa"], samples=SMALL, seed=1)
    assert other["suites"]["vqa"]["seen"]["mean"] == 1


def test_bad_requests_are_sentences():
    with pytest.raises(ValueError, match="no suite 'nonsense'; choose from geneval, dense"):
        ev.evaluate(None, ["geneval", "nonsense"])
    with pytest.raises(ValueError, match="samples is 0; expected 1 or more"):
        ev.evaluate(None, ["vqa"], samples=0)


def test_a_real_model_takes_every_suite():
    from blip3o_mini.model import Blip3oMini

    scores = ev.evaluate(Blip3oMini.from_preset("tiny", device="cpu"), samples=1)
    assert scores["checkpoint"] == "tiny"
    assert {split["n"] for splits in scores["suites"].values() for split in splits.values()} == {1}


def test_scores_are_written_whole_or_not_at_all(tmp_path, oracle_scores):
    path = tmp_path / "new" / "scores.json"
    ev.write_json(path, oracle_scores)
    assert json.loads(path.read_text()) == oracle_scores
    with pytest.raises(TypeError):
        ev.write_json(path, {"bad": object()})
    assert json.loads(path.read_text()) == oracle_scores
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


def test_the_table_is_readable(oracle_scores):
    lines = ev.format_scores(oracle_scores).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["held-out", "seen", "baseline", "n"]
    assert any(line.startswith("geneval") and "1.00 (" in line for line in lines)
    assert any(line.startswith("  position") for line in lines)
    assert any(line.startswith("  facts") and "–" in line for line in lines)  # there are no held-out facts
    short = ev.format_scores(oracle_scores, has_categories=False).splitlines()
    assert len(short) == len(ev.SUITES) + 2
