"""How good is a model? Suites with n, a 95 % interval and a baseline, seen and held-out apart.

A held-out prompt (or scene) asserts a combination that training never shows, a seen one asserts none. The
same seed asks the same questions and starts from the same noise. `SUITES` are those that a checkpoint is
accepted by; `MORE_SUITES` ask in strangers' words, and tell which part of the model knows what. Lesson 10.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import own_words, parts, pictured, prompted, worded
from .geneval import score_results, write_results
from .report import format_scores, write_json

# Every suite and how many prompts it asks on each split.
_ACCEPTANCE = {
    "geneval": (prompted.run_geneval, 300),
    "dense": (prompted.run_dense, 100),
    "knowledge": (prompted.run_knowledge, 150),
    "vqa": (worded.run_vqa, 450),
    "caption": (worded.run_caption, 200),
    "classify": (worded.run_classify, 200),
    "hallucination": (worded.run_hallucination, 300),
    "edit": (pictured.run_edit, 180),
    "text": (worded.run_text, 300),
    "reconstruct": (pictured.run_reconstruct, 200),
    "diversity": (prompted.run_diversity, 16),
}
_MORE = {
    "own_prompts": (own_words.run_own_prompts, own_words.MOST),
    "own_questions": (own_words.run_own_questions, own_words.MOST),
    "probes": (parts.run_probes, 200),
}
_SUITES = _ACCEPTANCE | _MORE
SUITES, MORE_SUITES = tuple(_ACCEPTANCE), tuple(_MORE)
SPLITS = ("heldout", "seen")


def evaluate(
    model, suites: Sequence[str] = SUITES, *, samples: int | None = None, seed: int = 0, progress: bool = False
) -> dict:
    """Score a model: {"checkpoint", "suites": {suite: {"heldout" | "seen": {"mean", "low", "high", "n", …}}}}.

    `samples` is the number of prompts per suite and split (default: each suite's own); geneval, vqa and edit
    spread them over their categories; the own_ suites hold no more than were written.
    Raises ValueError on unknown suites or samples below 1.
    """
    for name in suites:
        if name not in _SUITES:
            raise ValueError(f"there is no suite {name!r}; choose from {', '.join(_SUITES)}")
    if samples is not None and samples < 1:
        raise ValueError(f"samples is {samples}; expected 1 or more")
    scores = {name: {split: _run(model, name, split, samples, seed, progress) for split in SPLITS} for name in suites}
    return {"checkpoint": _name(model), "suites": scores}


def _run(model, name: str, split: str, samples: int | None, seed: int, progress: bool) -> dict:
    """Score one suite on one split, with random numbers of its own."""
    run, usual = _SUITES[name]
    n = samples or usual
    with tqdm(total=n, desc=f"{name} ({split})", leave=False, disable=not progress) as bar:
        return run(model, n, generator(name, split, seed), split == "heldout", seed, bar.update).summary()


def generator(name: str, split: str, seed: int) -> np.random.Generator:
    """The random numbers that make the questions of one suite on one split."""
    return np.random.default_rng([seed, zlib.crc32(f"{name} {split}".encode())])


def _name(model) -> str:
    folder = getattr(model, "folder", None)
    return Path(folder).name if folder else getattr(getattr(model, "config", None), "name", type(model).__name__)


__all__ = [
    "MORE_SUITES", "SPLITS", "SUITES", "evaluate", "format_scores", "score_results", "write_json", "write_results",
]  # fmt: skip
