"""convert: the command that carries checkpoints between the original's format and ours."""

from __future__ import annotations

import argparse

from .arguments import add_command, number, words

CONVERT = """
Write a checkpoint in the other format: a published BLIP3-o folder in ours (config.json and
one file per part), or one of ours as a published folder (sharded, with an index). Every
tensor stays as it is, bit for bit; little memory is needed.

Writes: DIR, which must be new or empty. All of it or, if anything goes wrong, nothing."""


def add(commands) -> None:
    parser = add_command(
        commands, "convert", convert, summary="published checkpoint ↔ ours", teaches=CONVERT,
        examples="""
        blip3o-mini convert BLIP3o-Model-8B --out runs/8b
        blip3o-mini convert runs/8b --out runs/8b-published --shard-size 5
        """,
    )  # fmt: skip
    parser.add_argument("folder", type=words, metavar="FOLDER", help="a checkpoint folder, or a model id on the hub")
    parser.add_argument("--out", type=words, required=True, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--shard-size", type=number(0.001, 1000), default=5.0, metavar="GB",
        help="the most that a file of a published folder holds (default: 5)",
    )  # fmt: skip


def convert(args: argparse.Namespace) -> None:
    from .. import conversion

    source = conversion.convert(args.folder, args.out, shard=int(args.shard_size * 1e9))
    count = sum(stored.numel for tensors in source.tensors.values() for stored in tensors.values())
    print(f"{args.out}: {count / 1e6:,.1f} million weights in {'our' if source.is_theirs else 'the published'} format")
