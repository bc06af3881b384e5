"""The project's own files agree with each other and are fit to be read by strangers."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PYTHONS = ("3.11", "3.12", "3.13")
LARGEST_FILE, LARGEST_PROJECT = 2_000_000, 80_000_000  # bytes; the checkpoint apart
BINARY = {".png", ".jpg", ".safetensors", ".tar", ".webp"}

# Written in pieces, so that this file does not contain what it looks for.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me")) + r")/[\w.]")
INDEX_HOSTS = re.compile(
    "|".join((r"pypi\." + "org", "pythonhosted" + r"\.org", "download" + r"\.pytorch", "extra-" + "index-url"))
)


def tracked() -> list[Path]:
    """Files under version control."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode or not listing.stdout:
        pytest.skip("not a clone: nothing says which files belong to the project")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts():
    """(path, text) of every text file."""
    for path in tracked():
        if path.suffix not in BINARY:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def locked(python: str) -> dict[str, Version]:
    """Pins that hold for one Python on Linux."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython",
    }  # fmt: skip
    found = {}
    for line in LOCK.splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{line} is not a pin"
            assert canonicalize_name(requirement.name) not in found, f"{requirement.name} is pinned twice"
            found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def direct() -> list[Requirement]:
    """Every library that pyproject.toml names."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in extras if name != "all" for line in extras[name])]
    return [Requirement(line) for line in lines]


# ------------------------------------------------------------------ one source for versions


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_the_project(python):
    pins = locked(python)
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is missing in requirements.lock; make it anew"
        assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]} is outside {requirement.specifier}"


def test_the_lock_names_no_host():
    assert not [line for line in LOCK.splitlines() if "://" in line or line.startswith("-") or " @ " in line]


def test_every_range_ends_before_the_next_great_change():
    """The big libraries break their users with new versions, so each has an upper end."""
    free = {"pillow", "tqdm", "pyyaml"}
    assert {r.name for r in direct() if not any(s.operator == "<" for s in r.specifier)} == free


def test_all_is_all():
    extras = PROJECT["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.name == PROJECT["name"] and everything.extras == set(extras) - {"all"}


def test_conda_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    plain = [one for one in environment["dependencies"] if isinstance(one, str)]
    (nested,) = [one for one in environment["dependencies"] if isinstance(one, dict)]
    assert [one for one in plain if not one.startswith("python=")] == ["pip"]
    (version,) = [one.removeprefix("python=") for one in plain if one.startswith("python=")]
    assert version in PYTHONS and SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")
    assert nested == {"pip": ["-r requirements.lock", "-e .[all]"]}


def test_there_is_one_version():
    import blip3o_mini

    assert blip3o_mini.__version__ == PROJECT["version"]


def test_python_versions_agree():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    text = (ROOT / "bootstrap.py").read_text()
    assert f"{PYTHONS[0]} to {PYTHONS[-1]}" in text
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == "py" + PYTHONS[0].replace(".", "")


# ------------------------------------------------------------------ the files a newcomer meets


def test_the_licence_is_apache():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    assert "Apache License" in text and "Version 2.0, January 2004" in text and text.count("\n") > 190


def test_ci_runs_the_readmes_test_command_and_nothing_else():
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    command = "python3 bootstrap.py test"
    assert lines == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', command]
    assert os.name == "nt" or os.access(script, os.X_OK)
    assert command in (ROOT / "README.md").read_text()


def test_the_readme_shows_every_way_to_install():
    text = (ROOT / "README.md").read_text()
    for command in (
        "bootstrap.py start",
        "bootstrap.py lab",
        "pip install -e .[all]",
        "conda env create -f environment.yml",
    ):
        assert command in text


def test_ruff_is_content():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------ hygiene


def test_no_machine_and_no_package_index_is_named():
    found = [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(line) or INDEX_HOSTS.search(line)
    ]
    assert not found, "\n".join(found)


def test_text_is_utf8_with_unix_ends_and_no_stray_blanks():
    for path, text in texts():
        assert "\r" not in text, f"{path} has Windows line ends"
        assert not text or text.endswith("\n") or path.suffix in (".json", ".jinja"), f"{path} lacks its last line end"
        if path.suffix in (".py", ".md", ".toml", ".yml"):
            stray = [number for number, line in enumerate(text.splitlines(), 1) if line != line.rstrip()]
            assert not stray, f"{path} has blanks at the end of lines {stray}"


def test_nothing_is_large():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    checkpoint, numbers = Path("data", "toy"), Path("tests", "parity")  # numbers of the original, as they are
    rest = {path: n for path, n in sizes.items() if not {checkpoint, numbers} & {*path.parents}}
    assert not {path: n for path, n in rest.items() if n > LARGEST_FILE}
    assert sum(n for path, n in sizes.items() if numbers in path.parents) <= 24_000_000
    assert sum(n for path, n in sizes.items() if checkpoint in path.parents) <= 40_000_000
    assert sum(sizes.values()) <= LARGEST_PROJECT


def test_what_is_made_is_not_kept():
    unwanted = re.compile(r"(^|/)(__pycache__|\.ipynb_checkpoints|\.venv|runs|out|.*\.egg-info)(/|$)|\.pyc$|uv\.lock$")
    assert not [path for path in tracked() if unwanted.search(path.relative_to(ROOT).as_posix())]
