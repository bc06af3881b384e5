"""What the instruct stage adds: `python benchmarks/instruct_gain.py runs/toy` (about 6 minutes on 2 cores).

Scores the same folder twice, with the weights of stages/generation and with those of stages/instruct, on the same
prompts and seeds, and writes benchmarks/instruct_gain.json. The paper's authors report 5 to 7 points of GenEval
for their 60,000 instruction pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from world import machine

HERE = Path(__file__).resolve().parent
SUITES = ("geneval", "dense", "knowledge", "edit")
STAGES = ("generation", "instruct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that `blip3o-mini train` has filled")
    parser.add_argument("--json", type=Path, default=HERE / "instruct_gain.json")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from blip3o_mini import Blip3oMini
    from blip3o_mini.checkpoint import load_part
    from blip3o_mini.evaluate import evaluate, format_scores, write_json

    model = Blip3oMini.from_pretrained(args.folder)
    told = {"seed": args.seed, "machine": machine(), "after": {}}
    for stage in STAGES:
        for part in ("backbone", "dit"):
            load_part(getattr(model, part), args.folder / "stages" / stage, part)
        scores = evaluate(model, SUITES, seed=args.seed, progress=True)
        print(f"after the stage {stage}\n{format_scores(scores)}")
        told["after"][stage] = scores["suites"]
    write_json(args.json, told)


if __name__ == "__main__":
    main()
