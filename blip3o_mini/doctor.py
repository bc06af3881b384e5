"""Is this machine ready? Versions, cores, memory, disk, device, the shipped checkpoint, the notebooks' kernel.

Every finding is (name, value, is_ok, remedy); a remedy beside an `is_ok` one is only a hint. Fast and offline:
it reads what is installed but imports none of the large libraries, so it also works when those are broken.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "data" / "toy"
PARTS = ("vision", "backbone", "dit", "decoder")
TRIED = ((3, 11), (3, 13))  # oldest and newest Python that was tried
INSTALL = "run: python3 bootstrap.py start   (or in your own environment: pip install -e .[all])"
LEAST_MEMORY, LEAST_DISK = 2.0, 1.0  # GB to draw with the toy and to train it


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    value: str
    is_ok: bool = True
    remedy: str = ""


def report() -> list[Finding]:
    """Every finding, in the order in which trouble usually starts."""
    found = [python(), *libraries(), pairing(), cores(), memory(), disk(), device(), checkpoint(), kernel()]
    return [finding for finding in found if finding is not None]


def failed(findings: list[Finding]) -> bool:
    """Whether a finding needs action."""
    return not all(finding.is_ok for finding in findings)


def format_report(findings: list[Finding]) -> str:
    """A line per finding, its remedy below it, and the verdict."""
    wide = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'✔' if finding.is_ok else '✘'} {finding.name:<{wide}}  {finding.value}")
        if finding.remedy:
            lines.append(f"  {'':<{wide}}  → {finding.remedy}")
    wrong = sum(not finding.is_ok for finding in findings)
    verdict = (
        "everything is in order"
        if not wrong
        else f"{wrong} of {len(findings)} findings need{'s' * (wrong == 1)} action"
    )
    return "\n".join([*lines, "", verdict])


# ------------------------------------------------------------------ software


def python() -> Finding:
    version, place = sys.version_info[:2], "its own environment" if sys.prefix != sys.base_prefix else "no environment"
    value = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {place}"
    if version < TRIED[0]:
        return Finding("Python", value, False, "install Python 3.11, 3.12 or 3.13 and run bootstrap.py with it")
    if version > TRIED[1]:
        return Finding("Python", value, True, "3.11 to 3.13 were tried; if something fails, take one of those")
    return Finding("Python", value)


def libraries() -> list[Finding]:
    """Each library the project names, against the range in pyproject.toml and the pin in requirements.lock."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("blip3o_mini") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("blip3o_mini", "not installed", False, INSTALL)]
    requirements = [Requirement(line) for line in lines]
    wanted = [one for one in requirements if one.name != "blip3o_mini"]  # [all] names the project itself
    return [library(one, pins(ROOT / "requirements.lock")) for one in wanted]


def library(requirement, pinned: dict[str, set[str]]) -> Finding:
    """One library; those of an extra may be missing."""
    name, extra = requirement.name, re.search(r'extra == "(\w+)"', str(requirement.marker))
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        purpose = f", needed for {'the notebooks' if extra[1] == 'lab' else 'the tests'}" if extra else ""
        return Finding(name, f"missing{purpose}", extra is not None, INSTALL)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, f"{version}, but {requirement.specifier} is needed", False, INSTALL)
    pin = pinned.get(normal(name), {version})
    is_pinned = version.partition("+")[0] in pin
    return Finding(name, version if is_pinned else f"{version} ({' or '.join(sorted(pin))} was tried)")


def pins(lock: Path) -> dict[str, set[str]]:
    """Versions in a lock file, by normal name; several where they depend on Python."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text() if lock.is_file() else "", re.M):
        found.setdefault(normal(name), set()).add(version)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pairing() -> Finding | None:
    """torch and torchvision must be built for each other; nothing but the pins enforces it."""
    try:
        builds = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
    except importlib.metadata.PackageNotFoundError:
        return None  # reported above
    kinds = {version.partition("+")[2] for version in builds.values()}
    value = ", ".join(f"{name} {version}" for name, version in builds.items())
    if len(kinds) > 1:
        return Finding(
            "torch's build", f"{value} are builds of different kinds", False, f"install both anew; {INSTALL}"
        )
    cuda = torch_cuda()
    return Finding("torch's build", f"with CUDA {cuda}" if cuda else "without CUDA")


def torch_cuda() -> str | None:
    """The CUDA version torch was built with, read from its files: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = re.search(r"^cuda[^=]*= *'([\d.]+)'", version.read_text(), re.M) if version and version.is_file() else None
    return found[1] if found else None


# ------------------------------------------------------------------ machine


def cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    value = f"{count} cores" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if hasattr(os, "getloadavg") and (busy := os.getloadavg()[0]) > count / 2:
        return Finding("cores", f"{value}, {busy:.1f} of them busy", True, "timings will be slower than usual")
    if threads.isdigit() and int(threads) > count:
        return Finding("cores", value, True, f"more threads than cores is slow; set OMP_NUM_THREADS={count}")
    return Finding("cores", value)


def memory() -> Finding:
    try:
        import psutil
    except ImportError:
        return Finding("memory", "unknown (psutil is missing)")
    total, free = (getattr(psutil.virtual_memory(), name) / 2**30 for name in ("total", "available"))
    remedy = "" if free >= LEAST_MEMORY else f"the toy needs about {LEAST_MEMORY:.0f} GB; close other programs"
    return Finding("memory", f"{free:.1f} GB free of {total:.1f}", not remedy, remedy)


def disk() -> Finding:
    free = shutil.disk_usage(ROOT).free / 1e9
    remedy = "" if free >= LEAST_DISK else f"training and pictures need about {LEAST_DISK:.0f} GB; free some space"
    return Finding("disk", f"{free:.1f} GB free", not remedy, remedy)


def device() -> Finding:
    """What `--device auto` takes, and why."""
    gpu, cuda = nvidia(), torch_cuda()
    if gpu is None:
        if sys.platform == "darwin" and platform.machine() == "arm64":
            return Finding("device", "mps: this is a Mac with an Apple GPU")
        return Finding("device", "cpu: no NVIDIA driver and no Apple GPU were found")
    name, driver = gpu
    if cuda is None:
        hint = "install torch with CUDA (pytorch.org tells the command) to use the GPU"
        return Finding("device", f"cpu: {name} is there, but torch was built without CUDA", True, hint)
    if driver[0] < int(cuda.partition(".")[0]):
        hint = f"update the NVIDIA driver to one for CUDA {cuda} to use the GPU"
        value = f"cpu: {name} is there, but its driver knows CUDA only up to {driver[0]}.{driver[1]}"
        return Finding("device", value, True, hint)
    return Finding("device", f"cuda: {name}, driver for CUDA {driver[0]}.{driver[1]}")


def nvidia() -> tuple[str, tuple[int, int]] | None:
    """Name of the first GPU and the newest CUDA its driver knows, asked of the driver itself."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        count, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
            return None
        driver.cuDriverGetVersion(ctypes.byref(version))
        driver.cuDeviceGetName(name, 100, 0)
    except (OSError, AttributeError):
        return None
    return name.value.decode(errors="replace"), (version.value // 1000, version.value % 1000 // 10)


# ------------------------------------------------------------------ files


def checkpoint(folder: Path = CHECKPOINT) -> Finding:
    """The shipped checkpoint: complete, and the bytes that were shipped."""
    remedy = "get it again: git checkout -- data/toy   (or train: blip3o-mini train --preset toy --out runs/toy)"
    if not folder.is_dir():
        return Finding("checkpoint", f"there is no folder {folder}", False, remedy)
    files = ("config.json", "tokenizer.json", *(f"{part}.safetensors" for part in PARTS))
    if missing := [name for name in files if not (folder / name).is_file()]:
        return Finding("checkpoint", f"{folder} lacks {', '.join(missing)}", False, remedy)
    if cut := [part for part in PARTS if not is_whole(folder / f"{part}.safetensors")]:
        return Finding("checkpoint", f"damaged or cut off: {', '.join(cut)} in {folder}", False, remedy)
    if changed := changed_files(folder):
        return Finding("checkpoint", f"not as it was shipped: {', '.join(changed)} in {folder}", False, remedy)
    total = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
    is_summed = (folder / "SHA256SUMS").is_file()
    return Finding("checkpoint", f"toy, {total:.0f} MB, {'as shipped' if is_summed else 'complete (no SHA256SUMS)'}")


def is_whole(path: Path) -> bool:
    """Whether a safetensors file has the length its own header asks for."""
    with open(path, "rb") as file:
        try:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 100_000_000)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return False
    return path.stat().st_size == 8 + length + max(ends, default=0)


def changed_files(folder: Path) -> list[str]:
    """Files that differ from SHA256SUMS (lines of "hash  name"); none when there is no such file."""
    sums = folder / "SHA256SUMS"
    lines = [line.split(maxsplit=1) for line in sums.read_text().splitlines()] if sums.is_file() else []
    return [
        name for wanted, name in lines
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted
    ]  # fmt: skip


def kernel() -> Finding:
    """The notebooks' kernel, `python3`, must run in this environment."""
    if importlib.util.find_spec("ipykernel") is None:
        return Finding("notebooks", "ipykernel is missing", True, INSTALL)
    spec = Path(sys.prefix) / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    program = json.loads(spec.read_text())["argv"][0] if spec.is_file() else sys.executable
    if os.path.isabs(program) and not os.path.exists(program):
        remedy = f"{Path(sys.executable).name} -m ipykernel install --sys-prefix"
        return Finding("notebooks", f"the kernel python3 starts {program}, which does not exist", False, remedy)
    return Finding("notebooks", "kernel python3, in this environment")
