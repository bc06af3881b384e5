"""data build, data inspect: the commands that make shards and look into data of any kind."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from . import session
from .arguments import add_command, add_model_options, add_seed, number, whole, words

DATA = """
Training data: pictures with a caption each. Wherever a command wants data, give

a folder of shards      shards
a pattern               "shards/{000000..000031}.tar", "tables/*.parquet"
a list of pictures      list.jsonl, metadata.csv (columns file_name and caption)
a folder of pictures    photos (a .txt or .json beside every picture)
an address              https://…/000000.tar, hf://datasets/OWNER/NAME/*.tar

Tar files hold KEY.jpg (png, webp, …) with KEY.txt or KEY.json, as the published BLIP3-o data;
parquet and json have a picture column and a caption column."""

BUILD = """
Build WebDataset shards (KEY.png or KEY.jpg, KEY.txt, KEY.json in tar files), in the layout of
the published BLIP3-o data: of the little world, or with --source of any data, of which
everything that cannot be used is left out and listed.

Writes: DIR/*.tar and DIR/manifest.json with counts and checksums; DIR/problems.jsonl when something
was left out; with --features the features of all pictures, DIR/*.safetensors."""

INSPECT = """
Read data to its end: sizes, lengths of captions, what had to be mended (CMYK, EXIF rotation, wrong
extension …), what cannot be used (damaged or cut off files, missing captions, pictures of huge
dimensions …), and what differs from the manifest.

Writes: nothing, or with --sheet a page of pictures and with --log every problem."""


def add(commands) -> None:
    data = add_command(
        commands, "data", lambda args: data.print_help(), summary="build and inspect shards", teaches=DATA,
        examples="""
        blip3o-mini data build --out shards --count 1000
        blip3o-mini data inspect shards
        """,
    )  # fmt: skip
    actions = data.add_subparsers(metavar="COMMAND", title="commands")
    _add_build(actions)
    _add_inspect(actions)


def _add_build(actions) -> None:
    parser = add_command(
        actions, "build", build, summary="write shards", teaches=BUILD,
        examples="""
        blip3o-mini data build --out shards --count 1000 --seed 0
        blip3o-mini data build --out shards --source photos --size 512 --shuffle 10000
        blip3o-mini data build --out shards --source "raw/*.tar" --features --checkpoint toy
        """,
    )  # fmt: skip
    parser.add_argument("--out", type=words, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument(
        "--source", type=words, action="append", metavar="PLACE",
        help="take the samples from here; may be repeated (default: the little world)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=whole(1, 10**9), metavar="N", help="samples (default: 1000, of a source all)"
    )  # fmt: skip
    parser.add_argument(
        "--shard-size", type=whole(1, 10**6), default=1000, metavar="N", help="samples per tar file (default: 1000)"
    )  # fmt: skip
    parser.add_argument(
        "--size", type=whole(8, 4096), metavar="N",
        help="pixels: side of the little world's pictures (default: 72), or shorter side that larger pictures of a "
        "source are shrunk to (default: as they are)",
    )  # fmt: skip
    parser.add_argument(
        "--shuffle", type=whole(0, 10**6), default=0, metavar="N",
        help="mix the samples of a source, this many in memory (default: keep their order)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=number(0, 1), default=0.05, metavar="F",
        help="stop when more than this share cannot be used (default: 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--features", action="store_true", help="also store every picture's features by the checkpoint"
    )  # fmt: skip
    add_model_options(parser)


def _add_inspect(actions) -> None:
    parser = add_command(
        actions, "inspect", inspect, summary="statistics and problems", teaches=INSPECT,
        examples="""
        blip3o-mini data inspect shards --sheet shards.png
        blip3o-mini data inspect photos "tables/*.parquet" --log problems.jsonl
        """,
    )  # fmt: skip
    parser.add_argument("places", nargs="+", metavar="PLACE", help="folder, pattern, file or address")
    parser.add_argument("--sheet", type=words, metavar="FILE", help="write a page of sample pictures to this PNG")
    parser.add_argument("--log", type=words, metavar="FILE", help="add every problem to this file, one JSON per line")
    parser.add_argument(
        "--workers", type=whole(0, 256), default=0, metavar="N", help="processes that read (default: only this one)"
    )  # fmt: skip
    add_seed(parser)


def build(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder

    prepare_folder(args.out)
    from .. import data

    out = Path(args.out)
    sources = [data.find(place) for place in args.source or ()]
    opened = session.open_session(args) if args.features else None
    if sources:
        print(_repack(args, sources, out))
    else:
        size = {} if args.size is None else {"size": args.size}
        print(data.build(out, count=args.count or 1000, seed=args.seed, shard_size=args.shard_size, **size))
    if opened:
        session.note(f"features by the vision part of {args.checkpoint} on {opened.place}")
        data.add_features(out, opened.model.encode_images, args.checkpoint, progress=True)
        print(f"{out}: features of every picture")


def _repack(args: argparse.Namespace, sources: list, out: Path) -> str:
    """Write what is sound in the sources; a line on what was written and what was not."""
    from itertools import islice

    from .. import data

    kinds, write = Counter(), data.fault_log(out / "problems.jsonl")

    def report(fault) -> None:
        kinds[fault.kind] += 1
        write(fault)

    options = {"seed": args.seed, "shuffle": args.shuffle, "size": args.size, "limit": args.limit}
    samples = islice(data.repack(sources, report=report, **options), args.count)
    manifest = data.write_shards(samples, out, shard_size=args.shard_size)
    line = f"{out}: {sum(told['samples'] for told in manifest.values())} samples in {len(manifest)} shards"
    left_out = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    return f"{line}; left out: {left_out}, see {out / 'problems.jsonl'}" if kinds else f"{line}; nothing was left out"


def inspect(args: argparse.Namespace) -> None:
    from ..imagefile import prepare_folder

    sheet = Path(args.sheet) if args.sheet else None
    if sheet:
        prepare_folder(sheet.parent)
    from .. import data

    sources = [data.find(place) for place in args.places]
    log = {"report": data.fault_log(Path(args.log))} if args.log else {}
    print(data.inspect(sources, sheet=sheet, seed=args.seed, workers=args.workers, **log))
