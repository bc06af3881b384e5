"""Every score of a checkpoint, as committed: `python benchmarks/toy_quality.py` (about 5 minutes on 2 cores).

Writes benchmarks/toy_quality.json: the suites of `blip3o-mini evaluate --suite all,own_prompts,own_questions`,
how the checkpoint was trained (its own training.json), and the machine. README's table is made from it by
benchmarks/tables.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from world import machine

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="toy")
    parser.add_argument("--json", type=Path, default=HERE / "toy_quality.json")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import torch

    from blip3o_mini import Blip3oMini
    from blip3o_mini.checkpoint import find
    from blip3o_mini.evaluate import SUITES, evaluate, format_scores, write_json

    model = Blip3oMini.from_pretrained(args.checkpoint)
    scores = evaluate(model, (*SUITES, "own_prompts", "own_questions"), seed=args.seed, progress=True)
    print(format_scores(scores))
    training = json.loads((find(args.checkpoint) / "training.json").read_text())
    told = {"checkpoint": args.checkpoint, "seed": args.seed, "machine": machine() | {"torch": torch.__version__}}
    write_json(args.json, {**told, "training": training, "suites": scores["suites"]})


if __name__ == "__main__":
    main()
