"""Set up and run blip3o_mini on a machine that has nothing but Python 3.11 to 3.13.

python3 bootstrap.py start    install into .venv, then show all five tasks and their scores
python3 bootstrap.py test     install, then run every test and notebook (more words go to pytest)
python3 bootstrap.py lab      install, then open the notebooks
python3 bootstrap.py WORDS    install, then run: blip3o-mini WORDS

Installs what requirements.lock pins; when that is there already, it goes straight on. Standard library only.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

VERSION = "{}.{}".format(*sys.version_info)
ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "installed.txt"  # written last: what an interrupted run left behind is done again


def say(text):
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def call(*command, **options):
    """Exit code of a command that reads nothing from the keyboard."""
    return subprocess.call([str(word) for word in command], stdin=subprocess.DEVNULL, **options)


def wanted():
    """Everything the environment has to match: its place, its Python, the project file, the pins."""
    files = (ENVIRONMENT / "pyvenv.cfg", ROOT / "pyproject.toml", ROOT / "requirements.lock")
    return hashlib.sha256(b"".join([bytes(ROOT), *(f.read_bytes() for f in files if f.exists())])).hexdigest()


def make_environment():
    """Keep a .venv that works, else make a new one."""
    works = "import sys, pip._internal.cli.main; assert sys.version_info >= (3, 11)"
    if PYTHON.exists() and call(PYTHON, "-c", works, stderr=subprocess.DEVNULL) == 0:
        return say("bringing the environment .venv up to date")
    say(f"making the environment .venv with Python {VERSION}")
    if call(sys.executable, "-m", "venv", "--clear", ENVIRONMENT):
        sys.exit(f"bootstrap: .venv could not be made (see above); on Debian: sudo apt install python{VERSION}-venv")


def install():
    """Fill .venv with the pinned libraries and this package. uv is fast; pip does the same, slowly."""
    start = time.monotonic()
    STAMP.unlink(missing_ok=True)
    make_environment()
    say("installing uv, a fast installer")
    quiet = [] if sys.stderr.isatty() else ["-q"]  # a person sees progress, a log stays short
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", *quiet]
    uv = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, *quiet]
    call(*pip, "uv")
    say("installing blip3o_mini and its libraries (6 GB on Linux, where torch brings CUDA along; else about 2 GB)")
    for name, command in (("uv", uv), ("pip", pip)):
        if not (call(*command, "-r", ROOT / "requirements.lock") or call(*command, "--no-deps", "-e", ROOT)):
            STAMP.write_text(wanted())
            return say(f"installed in {time.monotonic() - start:.0f} s")
        say(f"{name} could not do it (see above)" + ("; pip tries next" if name == "uv" else ""))
    sys.exit("bootstrap: not everything could be installed; check network and disk, then run the same command again")


def run(command, **options):
    """Run the real thing and return its exit code; Ctrl-C is for it to answer (JupyterLab asks back)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: None)  # ours alone: the command starts with the system's default
    code = subprocess.Popen([str(word) for word in command], **options).wait()
    return 128 - code if code < 0 else code  # ended by a signal: what shells say


def main(words):
    if not words or words[0] in ("-h", "--help"):
        return print(__doc__)
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"bootstrap: Python {VERSION} is too old; try: python3.12 bootstrap.py start (3.11 to 3.13 work)")
    if not (PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted()):
        install()
    if words[0] != "test":
        return run([PYTHON, "-m", "blip3o_mini", *words])
    say("running the tests" + ("" if words[1:] else " and notebooks, for some minutes"))
    pytest = [PYTHON, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
    tests = words[1:] or ["tests", *sorted(ROOT.glob("notebooks/*.ipynb"))]
    return run([*pytest, *tests], cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("bootstrap: stopped; run the same command again to go on")
