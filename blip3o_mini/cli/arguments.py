"""The command line's grammar: a parser that complains in one sentence, value checks, shared options.

Every command is added by `add_command`, which asks for what a good help text has: what the command
does, what it writes, and examples that can be pasted.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn

PROGRAM = "blip3o-mini"
LARGEST_SEED = 2**63 - 1


class UsageError(ValueError):
    """The command line cannot be understood; the message is one sentence."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one plain sentence instead of a usage dump."""

    def __init__(self, **options):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(plain(message, self.prog))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26, width=96)


def plain(message: str, prog: str) -> str:
    """Turn argparse's message into a sentence that says what to do."""
    see = f"see {prog} --help"
    if found := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message, re.S):
        return f"there is no command {found[1]!r}; choose one of {found[2].replace(chr(39), '')}"
    if found := re.match(r"the following arguments are required: (.*)", message):
        return f"{prog.removeprefix(PROGRAM).strip() or 'it'} needs {found[1]}; {see}"
    if found := re.match(r"unrecognized arguments: (.*)", message, re.S):
        return f"{found[1]!r} is not understood here; {see}"
    if found := re.match(r"argument (\S+): expected (.*)", message):
        return f"{found[1]} expects {found[2]}; {see}"
    return re.sub(r"^argument (\S+): ", r"\1 ", message)


def add_command(commands, name: str, run: Callable, *, summary: str, teaches: str, examples: str) -> Parser:
    """Add a command whose help explains itself; `run(args)` returns the exit code (None counts as 0)."""
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    many = "s" if lines.count(f"  {PROGRAM}") > 1 else ""
    parser = commands.add_parser(
        name, help=summary, description=_unindent(teaches), epilog=f"example{many}:\n{lines}",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _unindent(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


# Value checks. argparse puts the option's name in front: "--steps must be …".


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            at_most = "" if most >= LARGEST_SEED else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}{at_most}, not {text!r}")
        return value

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """A finite number from `least` to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # also false for nan
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {text!r}")
        return value

    return parse


def words(text: str) -> str:
    """Text with at least one visible character, in valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("is not valid text; write it in UTF-8") from error
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; write at least one word")
    return text.strip()


def one_of(*names: str) -> Callable[[str], str]:
    """One of a few names (like argparse's `choices`, with a readable complaint)."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(names)}, not {text!r}")
        return text

    return parse


def device(text: str) -> str:
    """auto, cpu, cuda, cuda:1 … or mps."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, cuda:1 … or mps, not {text!r}")
    return text


# Options that several commands share.


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --device and --seed."""
    parser.add_argument(
        "--checkpoint", type=words, default="toy", metavar="NAME",
        help='"toy" (shipped with the project), a folder written by train, or a model id on the '
        "Hugging Face hub (default: toy)",
    )  # fmt: skip
    add_device(parser)
    add_seed(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", type=device, default="auto", metavar="NAME",
        help="auto, cpu, cuda, cuda:1 … or mps; auto takes a GPU when there is one (default: auto)",
    )  # fmt: skip


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=whole(0, LARGEST_SEED), default=0, metavar="N",
        help="start of all randomness: the same seed gives the same result (default: 0)",
    )  # fmt: skip


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How to sample, --out and --show-timing: for commands that draw."""
    parser.add_argument(
        "--num-images", type=whole(1, 10_000), default=1, metavar="N",
        help="pictures for each request (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=whole(1, 1000), metavar="N",
        help="Euler steps from noise to features; more is finer and slower (default: the checkpoint's own)",
    )  # fmt: skip
    parser.add_argument(
        "--guidance-scale", type=number(0, 100), metavar="F",
        help="how strictly the text is followed; 1 switches guidance off (default: the checkpoint's own)",
    )  # fmt: skip
    parser.add_argument(
        "--decoder-steps", type=whole(1, 1000), metavar="N",
        help="steps from features to the picture (default: the checkpoint's own)",
    )  # fmt: skip
    parser.add_argument(
        "--decoder-guidance-scale", type=number(0, 100), metavar="F",
        help="published models: how strictly the features are followed; 1 is off (default: the checkpoint's own)",
    )  # fmt: skip
    parser.add_argument(
        "--negative-prompt", metavar="TEXT",
        help="published models: whose features the decoder moves away from (default: a single space, as published)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=words, default="out", metavar="DIR",
        help="folder for 0000.png, 0001.png …; made if missing, files of these names are replaced "
        "(default: out)",
    )  # fmt: skip
    parser.add_argument("--show-timing", action="store_true", help="also print where the seconds went")
