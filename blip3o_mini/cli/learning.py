"""train, evaluate: the commands that make checkpoints and scores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..config import STAGES, preset
from . import session
from .arguments import add_command, add_device, add_model_options, add_seed, number, one_of, whole, words

ALL_STAGES = (*STAGES, "joint")

TRAIN = """
Train a model from nothing, stage after stage: vision (image features), decoder (features →
pixels), understanding (the backbone learns to look and to read), generation (backbone frozen;
queries and diffusion transformer), instruct (a small clean set with edits and dialogues).

Writes: DIR with config.json, the weights, the training state and logs/. Stopped
or killed? Run the same command again: it continues where the last checkpoint left off."""

EVALUATE = """
Score a checkpoint with exact checkers on fresh prompts, combinations seen in training and
held-out ones apart. Every score comes with n, a 95 % interval and the majority or chance
baseline. "all" stands for the suites that a checkpoint is accepted by:

  geneval, dense, knowledge, vqa, caption, classify, hallucination, edit, text, reconstruct, diversity

Three more are asked for by name: own_prompts and own_questions, which strangers worded, and
probes, a diagnosis of what each part knows (features, decoder, condition, dit, whole), for
finding the part that fails.

Writes: the table on stdout and, with --json, FILE."""

def add(commands) -> None:
    _add_train(commands)
    _add_evaluate(commands)


def _add_train(commands) -> None:
    parser = add_command(
        commands, "train", train, summary="train all stages, or some", teaches=TRAIN,
        examples="""
        blip3o-mini train --preset toy --out runs/toy
        blip3o-mini train --preset tiny --scale 0.1 --stage vision --stage decoder --out runs/look
        """,
    )  # fmt: skip
    parser.add_argument("--preset", type=words, default="toy", metavar="NAME", help="size of the model (default: toy)")
    parser.add_argument("--out", type=words, required=True, metavar="DIR", help="folder of the run; resumed if begun")
    parser.add_argument(
        "--stage", type=one_of(*ALL_STAGES), action="append", metavar="STAGE",
        help=f"train only this stage; may be repeated ({', '.join(ALL_STAGES)}; default: all but joint)",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=number(0.001, 1000), default=1.0, metavar="F",
        help="multiply the steps of every stage, for a quick look or a long run (default: 1)",
    )  # fmt: skip
    add_device(parser)
    add_seed(parser)


def _add_evaluate(commands) -> None:
    parser = add_command(
        commands, "evaluate", evaluate, summary="scores with intervals", teaches=EVALUATE,
        examples="""
        blip3o-mini evaluate --suite geneval,vqa --samples 50
        blip3o-mini evaluate --suite all --json out/scores.json
        blip3o-mini evaluate --suite probes --checkpoint runs/toy
        """,
    )  # fmt: skip
    parser.add_argument(
        "--suite", type=words, default="all", metavar="NAMES",
        help="suites separated by commas; all: the acceptance suites (default: all)",
    )  # fmt: skip
    parser.add_argument("--json", type=words, metavar="FILE", help="also write the scores to this file")
    parser.add_argument(
        "--samples",
        type=whole(1, 10**6),
        metavar="N",
        help="prompts per suite and split (default: each suite's own)",
    )
    add_model_options(parser)


def _given(**options) -> dict:
    """Only what the user set: everything else is the callee's own default."""
    return {name: value for name, value in options.items() if value is not None}


def train(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder

    preset(args.preset)  # a wrong name should not cost the import of torch
    prepare_folder(args.out)
    from .. import train as training
    from ..checkpoint import choose_device

    device, reason = choose_device(args.device)

    session.note(f"training {args.preset} on {device} ({reason}); Ctrl-C stops, the same command resumes")
    training.run(
        args.preset, Path(args.out), stages=args.stage, seed=args.seed, device=device, scale=args.scale
    )  # fmt: skip
    print(f'{args.out}   try it: blip3o-mini generate --checkpoint {args.out} --prompt "a red star"')


def evaluate(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder, write_files

    target = Path(args.json) if args.json else None
    if target:
        if target.is_dir():
            raise ValueError(f"{target} is a folder; give a file name, for example {target / 'scores.json'}")
        prepare_folder(target.parent)
    from .. import evaluate as measures

    suites = _suites(args.suite, measures.SUITES, measures.MORE_SUITES)
    opened = session.open_session(args)
    session.note(f"evaluating {args.checkpoint} on {opened.place}")
    scores = measures.evaluate(
        opened.model, suites, seed=args.seed, progress=True, **_given(samples=args.samples)
    )  # fmt: skip
    print(measures.format_scores(scores))
    if target:
        content = json.dumps(scores, indent=2) + "\n"
        write_files({target.name: content.encode()}, target.parent)


def _suites(text: str, acceptance: Sequence[str], more: Sequence[str]) -> list[str]:
    """Split --suite; "all" stands for every suite of the acceptance."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = ("all", *acceptance, *more)
    for name in names:
        if name not in known:
            raise ValueError(f"there is no suite {name!r}; choose from {', '.join(known)}")
    if not names:
        raise ValueError(f"--suite names no suite; choose from {', '.join(known)}")
    return list(dict.fromkeys(one for name in names for one in (acceptance if name == "all" else [name])))
