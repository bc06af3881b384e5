"""ask and caption: the commands that answer in words, on stdout, ready for a pipe."""

from __future__ import annotations

import argparse

from . import session
from .arguments import add_command, add_model_options, one_of, words

ASK = """
Answer a question: about a picture with --image, from the text alone without it.

Writes: nothing. The answer is one line on stdout."""

CAPTION = """
Describe a picture, in a few words or completely.

Writes: nothing. The caption is one line on stdout."""


def add(commands) -> None:
    parser = add_command(
        commands, "ask", ask, summary="question (+ image) → text", teaches=ASK,
        examples="""
        blip3o-mini ask --image out/0000.png --question "What colour is the circle?"
        blip3o-mini ask --question "How many corners does a triangle have?"
        """,
    )  # fmt: skip
    parser.add_argument("--question", type=words, required=True, metavar="TEXT", help="what to ask")
    parser.add_argument("--image", type=words, metavar="FILE", help="the picture it is about (optional)")
    add_model_options(parser)

    parser = add_command(
        commands, "caption", caption, summary="image → text", teaches=CAPTION,
        examples="blip3o-mini caption --image out/0000.png --style long",
    )  # fmt: skip
    parser.add_argument("--image", type=words, required=True, metavar="FILE", help="the picture to describe")
    parser.add_argument(
        "--style", type=one_of("short", "long"), default="short", metavar="STYLE",
        help="short (the main things) or long (everything, with places) (default: short)",
    )  # fmt: skip
    add_model_options(parser)


def ask(args: argparse.Namespace) -> None:
    from ..imagefile import read_image

    image = read_image(args.image) if args.image else None
    print(session.open_session(args).model.answer(image, args.question))


def caption(args: argparse.Namespace) -> None:
    from ..imagefile import read_image

    image = read_image(args.image)
    print(session.open_session(args).model.caption(image, style=args.style))
