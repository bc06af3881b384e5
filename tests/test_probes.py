"""Probes: what is plainly in a vector is read, what is not is guessed, and every part is asked the same scenes."""

import numpy as np
import pytest

from blip3o_mini import evaluate as ev
from blip3o_mini import world
from blip3o_mini.evaluate import parts, probing
from blip3o_mini.evaluate.probing import CellProbe, board_of
from blip3o_mini.evaluate.trial import noise
from blip3o_mini.world.parse import Reading
from blip3o_mini.world.scene import Object, make_scene, sample_scene

N = 300
CHANCE = {"shape": 1 / 6, "colour": 1 / 8, "size": 1 / 2}


def scenes(n, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, count=1 + k % 4) for k in range(n)]


def telling(some, rng):
    """Vectors that hold all there is to know, turned and with a little noise: (n, 9, words + 2)."""
    board = board_of(some)
    plain = np.concatenate([world.cell_words(some), board.offset / 4], axis=-1)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((plain.shape[-1],) * 2))[0]
    return plain @ turn + 0.01 * rng.standard_normal(plain.shape)


def judged(fit_vectors, fit_scenes, vectors, some, **options):
    told = CellProbe(fit_vectors, fit_scenes).read(vectors, has_offset=True)
    marks = parts.judge(board_of(some), told, is_heldout=options.get("is_heldout", False))
    return {name: np.mean(values) for name, values in marks.items()}


def test_a_probe_reads_what_the_vectors_hold(rng):
    some, fresh = scenes(N), scenes(N, seed=1)
    marks = judged(telling(some, rng), some, telling(fresh, rng), fresh)
    assert marks.pop("offset") > 0.99
    assert set(marks.values()) == {1}
    assert {"object", "shape", "colour", "size", "layout", "background", "exact", "1 object", "4 objects"} <= set(marks)


def test_a_probe_of_noise_guesses(rng):
    some, fresh = scenes(N), scenes(N, seed=1)
    marks = judged(rng.standard_normal((N, 9, 8)), some, rng.standard_normal((N, 9, 8)), fresh)
    for name, chance in CHANCE.items():
        assert abs(marks[name] - chance) < 0.09, name
    assert marks["background"] < 0.35 and marks["offset"] < 0.05
    assert marks["exact"] == marks["layout"] == marks["object"] == 0


def test_a_probe_reads_pairs_that_it_never_saw(rng):
    """A linear probe of shape does not care for colour when the vector keeps them apart."""
    some = scenes(N)
    held = parts.probe_scenes(60, rng, is_heldout=True)
    marks = judged(telling(some, rng), some, telling(held, rng), held, is_heldout=True)
    assert marks["object"] == marks["exact"] == 1


def test_only_heldout_pairs_are_judged_on_their_split():
    star, circle = Object("star", "blue", "large", 0, 0), Object("circle", "blue", "small", 2, 2)
    truth = board_of([make_scene([star, circle], "white")])
    wrong_star = board_of([make_scene([Object("star", "red", "large", 0, 0), circle], "white")])
    held, seen = (parts.judge(truth, wrong_star, is_heldout=h) for h in (True, False))
    assert held["colour"] == [0] and seen["colour"] == [0, 1]
    assert held["shape"] == [1] and seen["exact"] == held["exact"] == [0]
    assert parts.judge(truth, truth, is_heldout=True)["object"] == [1]


def test_a_picture_with_something_unreadable_is_not_exact():
    (scene,) = scenes(1)
    truth = board_of([scene])
    for unreadable in (0, 1):
        told = board_of([Reading(scene.objects, scene.background, unreadable)])
        assert parts.judge(truth, told, is_heldout=False)["exact"] == [float(not unreadable)]
    refused = board_of([Reading((), None, 0)])
    marks = parts.judge(truth, refused, is_heldout=False)
    assert not any(sum(values) for name, values in marks.items() if name != "offset")


def test_the_heldout_split_holds_pairs_and_the_fit_none(rng):
    held = world.scene.HELDOUT_PAIRS
    for scene in parts.probe_scenes(40, rng, is_heldout=True):
        assert any((o.shape, o.colour) in held for o in scene.objects)
    for scene in parts.probe_scenes(40, rng, is_heldout=False):
        assert not any((o.shape, o.colour) in held for o in scene.objects)


def test_vectors_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"one vector for each of 9 cells, \(3, 9, W\), not \(3, 64, 5\)"):
        CellProbe(np.zeros((3, 64, 5)), scenes(3))


def test_the_drawn_features_are_those_that_generate_decodes(tiny_model, monkeypatch):
    """Else the difference between `dit` and `whole` would not be the decoder's."""
    import torch

    prompts = [world.long_caption(scene) for scene in scenes(5)]
    monkeypatch.setattr(parts.batches, "__defaults__", (2,))
    features = torch.from_numpy(parts.drawn_features(tiny_model, prompts, seed=3))
    decoded = []
    monkeypatch.setattr(tiny_model, "decode", lambda f, generators, **_: decoded.append(f) or [None] * len(f))
    tiny_model.generate(prompts, generator=noise(0, 5, 3))
    torch.testing.assert_close(features, decoded[0], rtol=1e-4, atol=1e-4)  # batches of other sizes sum differently


def test_a_real_model_is_probed(tiny_model, monkeypatch):
    monkeypatch.setattr(parts, "FIT_SCENES", 80)
    monkeypatch.setattr(probing, "STEPS", 10)
    splits = ev.evaluate(tiny_model, ["probes"], samples=8)["suites"]["probes"]
    for split in splits.values():
        assert split["n"] == 8 and set(split) == {"mean", "low", "high", "n", "baseline", "categories"}
        assert {name.split(": ")[0] for name in split["categories"]} == {
            "features", "decoder", "condition", "dit", "whole",
        }  # fmt: skip
        assert split["mean"] == split["categories"]["whole: exact"]["mean"]
        assert "features: offset" in split["categories"] and "condition: offset" not in split["categories"]
        assert split["categories"]["condition: 3 objects"]["n"] == 2
    table = ev.format_scores({"suites": {"probes": splits}}).splitlines()
    assert max(map(len, table)) <= 100 and any(line.startswith("  condition: 4 objects  ") for line in table)


def test_the_diagnosis_is_no_acceptance_and_the_help_names_every_suite():
    from blip3o_mini.cli.learning import EVALUATE

    assert "probes" in ev.MORE_SUITES and not set(ev.SUITES) & set(ev.MORE_SUITES)
    assert not [name for name in (*ev.SUITES, *ev.MORE_SUITES) if name not in EVALUATE]
