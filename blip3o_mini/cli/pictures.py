"""generate and edit: the commands that write pictures."""

from __future__ import annotations

import argparse
import sys
import time

from . import session
from .arguments import add_command, add_model_options, add_sampling_options, words

GENERATE = """
Draw pictures from text. The prompt goes through the backbone; its hidden states at the
queries condition the diffusion transformer, which turns noise into image features; the
decoder turns features into pixels.

Writes: DIR/0000.png, 0001.png …, all pictures of the first prompt first. All of them or,
if anything goes wrong, none. The same command writes the same files again."""

EDIT = """
Change a picture as an instruction says and leave the rest alone. The picture is read as
8-bit RGB (transparency over white, camera rotation applied) and resized for the model.

Writes: DIR/0000.png, 0001.png …, one picture for each of --num-images."""


def add(commands) -> None:
    parser = add_command(
        commands, "generate", generate, summary="text → image", teaches=GENERATE,
        examples="""
        blip3o-mini generate --prompt "a red circle to the left of a blue square" --num-images 4 --out out
        blip3o-mini generate --prompt "two green stars" --prompt "a large pink heart" --seed 7 --out out
        """,
    )  # fmt: skip
    parser.add_argument(
        "--prompt", type=words, action="append", required=True, metavar="TEXT",
        help="what to draw; give it several times to draw several things in one batch",
    )  # fmt: skip
    add_sampling_options(parser)
    add_model_options(parser)

    parser = add_command(
        commands, "edit", edit, summary="image + instruction → image", teaches=EDIT,
        examples='blip3o-mini edit --image out/0000.png --instruction "make the circle green" --out edited',
    )  # fmt: skip
    parser.add_argument("--image", type=words, required=True, metavar="FILE", help="the picture to change")
    parser.add_argument("--instruction", type=words, required=True, metavar="TEXT", help="what to change")
    add_sampling_options(parser)
    add_model_options(parser)


def generate(args: argparse.Namespace) -> None:
    from ..imagefile import MOST_IMAGES, prepare_folder

    total = len(args.prompt) * args.num_images
    if total > MOST_IMAGES:
        raise ValueError(f"{total} pictures are more than the {MOST_IMAGES} of one run; lower --num-images")
    prepare_folder(args.out)
    opened = session.open_session(args)
    _draw(args, opened, lambda options: opened.model.generate(args.prompt, **options))


def edit(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder, read_image

    image = read_image(args.image)
    prepare_folder(args.out)
    opened = session.open_session(args)
    _draw(args, opened, lambda options: opened.model.edit(image, args.instruction, **options))


def _draw(args: argparse.Namespace, opened: session.Session, draw) -> None:
    """Sample, write, and say what was written."""
    from ..imagefile import write_images

    start = time.perf_counter()
    names = ("num_images", "steps", "guidance_scale", "seed", "decoder_steps", "decoder_guidance_scale")
    options = {name: getattr(args, name) for name in (*names, "negative_prompt")}
    images = draw({**options, "progress": sys.stderr.isatty()})
    seconds = time.perf_counter() - start
    files = write_images(images, args.out)
    names = str(files[0]) if len(files) == 1 else f"{files[0]} … {files[-1].name}"
    size = f"{images[0].width}×{images[0].height}"
    print(f"{names} ({len(files)} of {size}), {seconds:.1f} s on {opened.place}")
    if args.show_timing:
        print(f"  imports and checkpoint  {opened.seconds:6.2f} s")
        print(f"  sampling                {seconds:6.2f} s, {seconds / len(files):.2f} s per picture")
