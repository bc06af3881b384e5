"""bench and lab: the commands that open what lies beside the package in the repository."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from .arguments import add_command, whole

REPOSITORY = Path(__file__).resolve().parents[2]

BENCH = """
Run a side-by-side timing. Without a name, lists the scripts there are; what follows the
name is handed to the script.

Writes: what the script says, usually a JSON file with the machine named."""

LAB = """
Open the notebooks in JupyterLab, in the browser. Stop it with Ctrl-C.

Writes: nothing by itself; notebooks are saved where they lie."""


def add(commands) -> None:
    parser = add_command(
        commands, "bench", bench, summary="timings, side by side", teaches=BENCH,
        examples="""
        blip3o-mini bench
        blip3o-mini bench world
        """,
    )  # fmt: skip
    parser.add_argument("name", nargs="?", metavar="NAME", help="a script in benchmarks/, without .py")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the script")

    parser = add_command(
        commands, "lab", lab, summary="open the notebooks", teaches=LAB,
        examples="""
        blip3o-mini lab
        blip3o-mini lab 00_start --no-browser --port 8899
        """,
    )  # fmt: skip
    parser.add_argument("notebook", nargs="?", metavar="NOTEBOOK", help="open this one, for example 00_start")
    parser.add_argument("--port", type=whole(1, 65535), metavar="N", help="listen here (default: 8888 or next free)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def bench(args: argparse.Namespace) -> int:
    folder = _beside("benchmarks")
    scripts = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")}
    names = ", ".join(scripts) or "none yet"
    if args.name is None:
        print(f"benchmarks in {folder}: {names}")
        return 0
    if args.name not in scripts:
        raise ValueError(f"there is no benchmark {args.name!r}; there are: {names}")
    return subprocess.call([sys.executable, str(scripts[args.name]), *args.rest])


def lab(args: argparse.Namespace) -> int:
    folder = _beside("notebooks")
    target = folder
    if args.notebook:
        target = folder / f"{Path(args.notebook).stem}.ipynb"
        if not target.is_file():
            names = ", ".join(path.stem for path in sorted(folder.glob("*.ipynb")))
            raise ValueError(f"there is no notebook {args.notebook!r}; there are: {names}")
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError('JupyterLab is not installed here; install it with: pip install -e ".[lab]"')
    command = [sys.executable, "-m", "jupyterlab", str(target)]
    if args.port:
        command.append(f"--port={args.port}")
    if args.no_browser:
        command.append("--no-browser")
    return subprocess.call(command)


def _beside(name: str) -> Path:
    """A folder of the repository; absent when only the package was installed."""
    folder = REPOSITORY / name
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; work in a clone of the repository (pip install -e .)")
    return folder
