"""Training: interrupted equals uninterrupted, frozen means frozen, a bad step changes nothing."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip3o_mini import checkpoint
from blip3o_mini.config import RECIPES, STAGES
from blip3o_mini.data import Pool
from blip3o_mini.model import Blip3oMini
from blip3o_mini.train import State, learning_rate, plan, run, train

RECIPE = dataclasses.replace(RECIPES["tiny"]["generation"], steps=6)


def fresh():
    model, pool = Blip3oMini.from_preset("tiny", seed=0), Pool(32, 0)
    pool.encode(model.vision)
    return model, pool


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run("tiny", folder, progress=False, scale=0.2)
    return folder


def test_every_stage_runs_and_is_logged_once(trained):
    lines = {stage: (trained / "logs" / f"{stage}.jsonl").read_text().splitlines() for stage in STAGES}
    for stage in STAGES:
        assert [json.loads(line)["step"] for line in lines[stage]] == list(range(4))
        assert (trained / "state" / f"{stage}.json").exists()
    for part in ("backbone", "dit"):  # the last stage's weights are the checkpoint's, those before it are kept
        folders = (trained, trained / "stages" / "instruct", trained / "stages" / "generation")
        final, last, before = (load_file(folder / f"{part}.safetensors") for folder in folders)
        assert all(torch.equal(final[name], last[name]) for name in final)
        assert not all(torch.equal(final[name], before[name]) for name in final)


def test_finished_stages_are_skipped_and_other_settings_refused(trained):
    before = {p.name: p.read_bytes() for p in trained.glob("*.safetensors")}
    run("tiny", trained, progress=False, scale=0.2)
    assert before == {p.name: p.read_bytes() for p in trained.glob("*.safetensors")}
    with pytest.raises(ValueError, match="other settings"):
        run("tiny", trained, progress=False, scale=0.3)


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    def go(stop):
        model, pool = fresh()
        made = plan("generation", model, pool, RECIPE, 0)
        state = State(made.parameters, RECIPE)
        steps = train(state, made.losses_at)
        for _ in range(stop):
            next(steps)
        return made, state

    _, whole = go(6)
    _, half = go(3)
    checkpoint.write_tensors(tmp_path / "state.safetensors", half.tensors(), {"step": "3"})
    made, resumed = go(0)
    tensors, metadata = checkpoint.read_tensors(tmp_path / "state.safetensors")
    resumed.load(tensors, int(metadata["step"]))
    assert len(list(train(resumed, made.losses_at))) == 3
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name


def test_frozen_means_frozen():
    model, pool = fresh()
    questions = ["how many corners does a triangle have?", "a red star. what color is the star?"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    answers = model.answer_batch([None, None], questions)
    made = plan("generation", model, pool, RECIPE, 0)
    assert len(list(train(State(made.parameters, RECIPE), made.losses_at))) == 6
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "backbone.queries" in changed and any(name.startswith("dit.") for name in changed)
    assert all(name == "backbone.queries" or name.startswith("dit.") for name in changed)
    assert model.answer_batch([None, None], questions) == answers
    assert all(p.grad is None for name, p in model.named_parameters() if not p.requires_grad)


def test_every_part_of_the_network_learns():
    model, pool = fresh()
    made = plan("generation", model, pool, RECIPE, 0)
    start = {name: p.detach().clone() for name, p in made.parameters.items()}
    list(train(State(made.parameters, RECIPE), made.losses_at))
    # Adding a constant to every key changes no softmax, so this bias has no gradient; decay spares it too.
    still = {name for name, p in made.parameters.items() if torch.equal(p, start[name])}
    assert all("norm_k.bias" in name for name in still), still


def test_a_step_that_is_not_finite_changes_nothing():
    model, pool = fresh()
    made = plan("generation", model, pool, RECIPE, 0)
    state = State(made.parameters, RECIPE)

    def poisoned(step):
        losses = made.losses_at(step)
        return {"loss": losses["loss"] * float("nan")} if step == 2 else losses

    steps = train(state, poisoned)
    next(steps), next(steps)
    kept = {name: p.detach().clone() for name, p in made.parameters.items()}
    with pytest.raises(FloatingPointError, match="step 2"):
        next(steps)
    assert all(torch.equal(p, kept[name]) for name, p in made.parameters.items())


def test_the_learning_rate_warms_up_and_falls_to_its_floor():
    recipe = dataclasses.replace(RECIPE, steps=1000, warmup=100, lr=1.0, floor=0.05)
    rates = [learning_rate(recipe, step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == rates[100] == 1.0
    assert rates[1000] == pytest.approx(0.05) and rates == rates[:101] + sorted(rates[101:], reverse=True)


def test_the_fast_products_end_with_the_training(trained):
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16" and torch.backends.cuda.flash_sdp_enabled()


def test_a_shipped_run_goes_back_to_earlier_stages(trained, tmp_path):
    ship = Path(__file__).resolve().parent.parent / "data" / "ship.py"
    subprocess.run([sys.executable, str(ship), str(trained), "--to", str(tmp_path)], check=True, capture_output=True)
    model = Blip3oMini.from_pretrained(tmp_path)
    now = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for stage, parts in (("generation", {"backbone", "dit"}), ("understanding", {"backbone"})):
        checkpoint.load_stage(model, stage, tmp_path)
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, now[name])]
        assert {name.split(".")[0] for name in changed} == parts
        assert [name for name in changed if name.startswith("backbone")] == ["backbone.queries"]
        model.load_state_dict(now)
    with pytest.raises(FileNotFoundError, match=r"keeps no weights of the stage 'vision'; it keeps: generation, under"):
        checkpoint.load_stage(model, "vision", tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        checkpoint.load_stage(Blip3oMini.from_preset("toy"), "generation", tmp_path)
