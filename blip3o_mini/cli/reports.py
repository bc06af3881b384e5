"""start, info, parity, doctor: the commands that show what is here and whether it is right."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from . import session
from .arguments import add_command, add_model_options, whole, words

START = """
The main job: checks the environment, loads the shipped checkpoint and does all five tasks
(text → text, image → text, text → image, image → image, dialogue) with a short score table.
The first picture comes within seconds, everything within about a minute on two CPU cores.

Writes: DIR/contact_sheet.png, one page with all pictures, questions and answers."""

INFO = """
What a model costs before anything is run: parameters of each part, memory, compute, and
the machines it fits on. Reads only the configuration, so it also works for 4b and 8b.

Writes: nothing."""

PARITY = """
Compare this package with tensors recorded from the original implementation. FOLDER holds
fixtures in the documented format; every quantity is one line of the table: file, quantity,
largest error, tolerance, pass. Exit code 1 when a line fails.

Writes: nothing."""

DOCTOR = """
Check the installation: Python, libraries and their versions, cores, memory, GPU, disk, the
shipped checkpoint. Every finding that needs action says which. Exit code 1 if one does.

Writes: nothing."""


def add_start(commands) -> None:
    parser = add_command(
        commands, "start", start, summary="see everything work (start here)", teaches=START,
        examples="""
        blip3o-mini start
        blip3o-mini start --seed 3 --samples 0 --out out/again
        """,
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=words,
        default="out/start",
        metavar="DIR",
        help="folder for the page (default: out/start)",
    )
    parser.add_argument(
        "--samples", type=whole(0, 1000), default=24, metavar="N",
        help="prompts per suite for the score table; 0 leaves it out (default: 24)",
    )  # fmt: skip
    add_model_options(parser)


def add(commands) -> None:
    parser = add_command(
        commands, "info", info, summary="parameters, memory, compute of a model", teaches=INFO,
        examples="""
        blip3o-mini info --preset 8b
        blip3o-mini info --checkpoint toy
        """,
    )  # fmt: skip
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--preset", type=words, metavar="NAME", help="tiny, toy, 4b or 8b (default: toy)")
    group.add_argument("--checkpoint", type=words, metavar="NAME", help='"toy" or a folder written by train')

    parser = add_command(
        commands, "parity", parity, summary="compare with the original's numbers", teaches=PARITY,
        examples="blip3o-mini parity fixtures/official",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", help="folder of fixtures, or one fixture")

    add_command(
        commands, "doctor", doctor, summary="check the installation", teaches=DOCTOR,
        examples="blip3o-mini doctor",
    )  # fmt: skip


def start(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder

    prepare_folder(args.out)
    print(f"loading {args.checkpoint} …", flush=True)
    opened = session.open_session(args)
    from .. import start as job

    job.run(opened, Path(args.out), samples=args.samples, seed=args.seed, say=partial(print, flush=True))


def info(args: argparse.Namespace) -> None:
    config = _config(args)
    from .. import cost

    print(cost.describe(config))


def _config(args: argparse.Namespace):
    from ..config import ModelConfig, preset

    if args.checkpoint and (Path(args.checkpoint) / "config.json").is_file():
        from ..loading import open_source  # knows the original's folders too

        source = open_source(Path(args.checkpoint))
        return source.config if source else ModelConfig.load(args.checkpoint)
    if args.checkpoint and args.checkpoint != "toy":
        raise ValueError(f"there is no config.json in {args.checkpoint}; give a folder written by train")
    return preset(args.preset or "toy")


def parity(args: argparse.Namespace) -> int:
    from .. import parity as comparison

    results = comparison.run(Path(args.folder))
    print(comparison.format_table(results))
    return 1 if comparison.failed(results) else 0


def doctor(args: argparse.Namespace) -> int:
    from .. import doctor as checkup

    findings = checkup.report()
    print(checkup.format_report(findings))
    return 1 if checkup.failed(findings) else 0
