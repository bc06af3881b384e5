"""Run the stages one after the other into a folder: vision → decoder → understanding → generation → instruct.

What one stage has learned is frozen before the next begins (the paper's sequential training). The folder is
a checkpoint at any moment; `stages/STAGE` keeps what each stage made, `state/` what is needed to continue, and
`logs/STAGE.jsonl` a line per step. Run the same command again after any interruption and it goes on where it
stopped. Stages that do not need each other's weights (decoder and understanding) may run side by side, in two
processes on the same folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from tqdm import tqdm

from .. import checkpoint
from ..config import POOL, RECIPES, STAGES, Recipe
from ..data import Pool
from ..model import Blip3oMini
from .loop import State, fast_cpu, train
from .stages import Plan, plan


def run(
    preset: str, out: str | Path, *, stages: Sequence[str] | None = None, seed: int = 0, device: str | None = None,
    scale: float = 1.0, every: float = 120.0, progress: bool = True,
) -> Blip3oMini:  # fmt: skip
    """Train a preset into the folder `out`; finished stages are skipped, an interrupted one continues.

    `scale` multiplies the number of steps; a checkpoint is written every `every` seconds. Raises ValueError
    when the folder was begun with another preset, seed or recipe.
    """
    out = Path(out)
    recipes = recipes_for(preset, stages, scale)
    model = open_or_start(preset, out, seed, device)
    pool = Pool(POOL[preset], seed)
    with fast_cpu() if model.device.type == "cpu" else nullcontext():
        for stage, recipe in recipes.items():
            if is_done(out, stage, recipe, seed):
                continue
            if stage != "vision" and pool.features is None:
                cache = out / "state" / "features.safetensors"
                pool.encode(model.vision, cache=cache, key=_fingerprint(out), progress=progress)
            run_stage(stage, plan(stage, model, pool, recipe, seed), model, recipe, out, seed, every, progress)
    return model.eval().requires_grad_(False)


def recipes_for(preset: str, stages: Sequence[str] | None, scale: float) -> dict[str, Recipe]:
    """The recipes to run, steps scaled; raises ValueError on an unknown preset or stage."""
    if preset not in RECIPES:
        raise ValueError(f"there is no training recipe for the preset {preset!r}; choose {' or '.join(RECIPES)}")
    known = RECIPES[preset]
    chosen = list(stages or STAGES)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"there is no stage {unknown[0]!r}; choose from {', '.join(known)}")
    if not scale > 0:
        raise ValueError(f"the scale of the steps is {scale}; expected a number above 0")
    return {
        name: dataclasses.replace(known[name], steps=max(1, round(known[name].steps * scale))) for name in chosen
    }


def open_or_start(preset: str, out: Path, seed: int, device: str | None) -> Blip3oMini:
    """The model in the folder, or a new one written into it."""
    if not (out / "config.json").exists():
        model = Blip3oMini.from_preset(preset, seed=seed, device=device)
        model.save_pretrained(out)
        (out / "state").mkdir(exist_ok=True)
    model = Blip3oMini.from_pretrained(out, device=device)
    if model.config.name != preset:
        raise ValueError(f"{out} holds the preset {model.config.name!r}, not {preset!r}; choose another folder")
    return model


def _fingerprint(out: Path) -> str:
    return hashlib.sha256((out / "vision.safetensors").read_bytes()).hexdigest()[:16]


def _settings(recipe: Recipe, seed: int) -> dict:
    return json.loads(json.dumps({"recipe": dataclasses.asdict(recipe), "seed": seed}))


def is_done(out: Path, stage: str, recipe: Recipe, seed: int) -> bool:
    """Whether the stage was finished, with this very recipe; raises ValueError when with another."""
    path = out / "state" / f"{stage}.json"
    if not path.exists():
        return False
    done = json.loads(path.read_text())
    if {key: done[key] for key in ("recipe", "seed")} != _settings(recipe, seed):
        raise ValueError(
            f"the stage {stage} in {out} was trained with other settings; remove {path} to train it again, "
            "or choose an empty folder"
        )
    return True


def run_stage(
    stage: str, made: Plan, model: Blip3oMini, recipe: Recipe, out: Path, seed: int, every: float, progress: bool
) -> None:
    """Train one stage to its end, then save its parts and mark it as done."""
    path, log_path = out / "state" / f"{stage}.safetensors", out / "logs" / f"{stage}.jsonl"
    path.parent.mkdir(exist_ok=True)
    log_path.parent.mkdir(exist_ok=True)
    model.train()
    state = State(made.parameters, recipe)
    if path.exists():
        tensors, metadata = checkpoint.read_tensors(path)
        if json.loads(metadata["settings"]) != _settings(recipe, seed):
            raise ValueError(f"{path} was begun with other settings; remove it or choose an empty folder")
        state.load(tensors, int(metadata["step"]))
    rewind(log_path, state.step)
    metadata = {"stage": stage, "settings": json.dumps(_settings(recipe, seed))}
    saved = time.monotonic()
    bar = tqdm(total=recipe.steps, initial=state.step, desc=stage, unit="step", mininterval=2, disable=not progress)
    with open(log_path, "a") as log, bar:
        for record in train(state, made.losses_at):
            log.write(json.dumps({"stage": stage, **{k: _rounded(v) for k, v in record.items()}}) + "\n")
            bar.update()
            bar.set_postfix_str(_summary(record), refresh=False)
            if time.monotonic() - saved > every:
                log.flush()
                checkpoint.write_tensors(path, state.tensors(), {**metadata, "step": str(state.step)})
                saved = time.monotonic()
    state.finish()
    model.eval()
    made.finish()
    kept = out / "stages" / stage  # what this stage alone made of its parts: a later one may train them on
    kept.mkdir(parents=True, exist_ok=True)
    for part in made.parts:
        checkpoint.save_part(getattr(model, part), kept, part)
        checkpoint.save_part(getattr(model, part), out, part)
    seconds = round(stage_seconds(log_path), 1)
    done = _settings(recipe, seed) | {"seconds": seconds, "threads": torch.get_num_threads()}
    checkpoint.write_text(out / "state" / f"{stage}.json", json.dumps(done, indent=2) + "\n")
    path.unlink(missing_ok=True)


def _records(log_path: Path) -> Iterable[dict]:
    lines = log_path.read_text().splitlines() if log_path.exists() else []
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when the run was killed


def rewind(log_path: Path, step: int) -> None:
    """Drop the log lines of steps that will be taken again."""
    kept = [r for r in _records(log_path) if r["step"] < step]
    checkpoint.write_text(log_path, "".join(json.dumps(r) + "\n" for r in kept))


def stage_seconds(log_path: Path) -> float:
    """Seconds spent in the steps of a stage, interruptions left out."""
    return sum(record["seconds"] for record in _records(log_path))


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def _summary(record: dict) -> str:
    shown = {k: v for k, v in record.items() if k not in ("step", "lr", "norm", "seconds")}
    return " ".join(f"{key} {value:.3f}" for key, value in shown.items())
