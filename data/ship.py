"""Put a trained folder where `from_pretrained("toy")` finds it: `python data/ship.py runs/toy`.

Copies weights, tokenizer and config to data/toy, with training.json (the command, every stage's recipe, seed and
seconds, the machine) and training_log.jsonl (every 25th step); stages/ keeps what the last stages changed, as it was
before them (`checkpoint.load_stage`). Refuses a folder whose training is not finished.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from hashlib import sha256
from pathlib import Path

from blip3o_mini.checkpoint import read_tensors, write_tensors
from blip3o_mini.config import STAGES

HERE = Path(__file__).resolve().parent
LOG_EVERY = 25


def processor() -> str:
    """Name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def training(folder: Path) -> dict:
    """What training.json says; raises ValueError when a stage is missing."""
    stages = {}
    for stage in STAGES:
        path = folder / "state" / f"{stage}.json"
        if not path.exists():
            raise ValueError(f"the stage {stage} in {folder} is not finished; run blip3o-mini train again")
        stages[stage] = json.loads(path.read_text())
    return {
        "command": f"blip3o-mini train --preset toy --out runs/toy --seed {stages['vision']['seed']}",
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "stages": stages,
    }


def keep_stages(folder: Path, to: Path) -> None:
    """The queries after understanding; queries and DiT (in half precision) after generation. All else stays."""
    for stage in ("understanding", "generation"):
        stages = folder / "stages" / stage
        tensors = {"backbone.queries": read_tensors(stages / "backbone.safetensors")[0]["queries"]}
        if (stages / "dit.safetensors").exists():
            dit, _ = read_tensors(stages / "dit.safetensors")
            tensors |= {f"dit.{name}": tensor.half() for name, tensor in dit.items()}
        write_tensors(to / "stages" / f"{stage}.safetensors", tensors, {"format": "pt", "stage": stage})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, default=HERE / "toy")
    parser.add_argument("--note", default="", help="what the recipe does not tell, such as a change on the way")
    args = parser.parse_args()
    told = training(args.folder) | {"note": args.note}
    (args.to / "stages").mkdir(parents=True, exist_ok=True)
    for path in sorted(args.folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja"):
            shutil.copy(path, args.to / path.name)
            (args.to / path.name).chmod(0o644)
    (args.to / "training.json").write_text(json.dumps(told, indent=2) + "\n")
    keep_stages(args.folder, args.to)
    lines = [line for stage in STAGES for line in (args.folder / "logs" / f"{stage}.jsonl").read_text().splitlines()]
    kept = [line for line in lines if json.loads(line)["step"] % LOG_EVERY == 0]
    (args.to / "training_log.jsonl").write_text("\n".join(kept) + "\n")
    weights = sorted(args.to.rglob("*.safetensors"))
    sums = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(args.to)}" for path in weights]
    (args.to / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    size = sum(path.stat().st_size for path in args.to.rglob("*") if path.is_file())
    print(f"{args.to}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
