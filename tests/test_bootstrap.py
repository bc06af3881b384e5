"""Setting up: nothing beyond the standard library, done once, redone after an interruption, clear when it fails.

Nothing is installed here: most tests replace the commands by records of them, the others run a copy of
bootstrap.py in a folder with an empty environment and a package that only echoes.
"""

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "bootstrap.py"
ECHO = "import sys; print('echo', *sys.argv[1:]); sys.exit(int(sys.argv[1]) if sys.argv[1:2] != ['start'] else 0)"


@pytest.fixture
def clone(tmp_path):
    """What bootstrap.py needs of a clone, in a folder with a blank in its name."""
    root = tmp_path / "a clone"
    (root / "blip3o_mini").mkdir(parents=True)
    (root / "blip3o_mini" / "__init__.py").touch()
    (root / "blip3o_mini" / "__main__.py").write_text(ECHO)
    (root / "bootstrap.py").write_text(SOURCE.read_text())
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "requirements.lock").write_text("torch==1\n")
    return root


@pytest.fixture
def bootstrap(clone):
    """The module, as loaded from the clone."""
    spec = importlib.util.spec_from_file_location("bootstrap_of_a_clone", clone / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Record(list):
    """Commands in the order they were given; those that contain a word of `failing` fail."""

    failing: frozenset = frozenset()

    def call(self, command, **options):
        self.append(" ".join(map(str, command)))
        words = set(map(str, command))
        if "venv" in words and not words & self.failing:
            make_python(Path(command[-1]))
        return int(bool(words & self.failing))


def make_python(environment: Path) -> None:
    program = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch()
    (environment / "pyvenv.cfg").write_text("version = 3.11.7\n")


@pytest.fixture
def record(bootstrap, monkeypatch):
    record = Record()
    monkeypatch.setattr(bootstrap.subprocess, "call", record.call)
    monkeypatch.setattr(bootstrap, "run", lambda command, **options: record.call(command, **options))
    return record


def steps(record) -> list[str]:
    """What the recorded commands are about."""
    kinds = {
        "venv --clear": "venv", "pip._internal": "check", " install uv": "uv", " install -q uv": "uv",
        "uv pip install.*-r ": "uv libraries", "uv pip install.*-e ": "uv package", "-m pip .*-r ": "pip libraries",
        "-m pip .*-e ": "pip package", "-m blip3o_mini": "command", "-m pytest": "tests",
    }  # fmt: skip
    return [next(kind for pattern, kind in kinds.items() if re.search(pattern, line)) for line in record]


def test_it_is_short_and_needs_only_the_standard_library():
    source = SOURCE.read_text()
    assert len(source.splitlines()) < 100
    imported = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_an_old_python_can_read_its_sentence(bootstrap, monkeypatch):
    ast.parse(SOURCE.read_text(), feature_version=(3, 7))
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 8, 10))
    monkeypatch.setattr(bootstrap, "VERSION", "3.8")
    with pytest.raises(SystemExit, match=r"Python 3.8 is too old; .*3.11 to 3.13"):
        bootstrap.main(["start"])


def test_without_a_word_it_explains_itself(bootstrap, record, capsys):
    for words in ([], ["-h"], ["--help"]):
        assert not bootstrap.main(words)
        assert "bootstrap.py start" in capsys.readouterr().out
    assert not record


def test_first_run(bootstrap, record, capsys):
    assert bootstrap.main(["start", "--seed", "3"]) == 0
    assert steps(record) == ["venv", "uv", "uv libraries", "uv package", "command"]
    assert record[-1].endswith("-m blip3o_mini start --seed 3")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4 and all(line.startswith("bootstrap: ") for line in said)


def test_second_run_goes_straight_on(bootstrap, record, capsys):
    bootstrap.main(["start"])
    record.clear()
    capsys.readouterr()
    assert bootstrap.main(["ask", "--question", "how many corners does a star have?"]) == 0
    assert steps(record) == ["command"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", ".venv/pyvenv.cfg"])
def test_a_change_installs_again(bootstrap, clone, record, name):
    bootstrap.main(["start"])
    record.clear()
    with open(clone / name, "a") as file:
        file.write("# changed\n")
    bootstrap.main(["start"])
    assert steps(record) == ["check", "uv", "uv libraries", "uv package", "command"]
    record.clear()
    bootstrap.main(["start"])
    assert steps(record) == ["command"]


def test_a_moved_clone_installs_again(bootstrap, clone, record, monkeypatch):
    bootstrap.main(["start"])
    before = bootstrap.wanted()
    monkeypatch.setattr(bootstrap, "ROOT", clone.parent / "elsewhere")
    assert bootstrap.wanted() != before


def test_an_interrupted_installation_is_done_again(bootstrap, record, monkeypatch):
    real = record.call

    def interrupted(command, **options):
        if "-r" in command:
            raise KeyboardInterrupt
        return real(command, **options)

    bootstrap.main(["start"])
    bootstrap.STAMP.write_text("of an older lock")
    monkeypatch.setattr(bootstrap.subprocess, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.main(["start"])
    assert not bootstrap.STAMP.exists()
    monkeypatch.setattr(bootstrap.subprocess, "call", real)
    record.clear()
    bootstrap.main(["start"])
    assert steps(record)[-3:] == ["uv libraries", "uv package", "command"]


def test_a_broken_environment_is_made_anew(bootstrap, record):
    bootstrap.main(["start"])
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to("gone")
    record.clear()
    bootstrap.main(["start"])
    assert steps(record)[0] == "venv"
    bootstrap.STAMP.unlink()
    record.clear()
    record.failing = {"import sys, pip._internal.cli.main; assert sys.version_info >= (3, 11)"}  # pip is half there
    bootstrap.main(["start"])
    assert steps(record)[:2] == ["check", "venv"]


def test_pip_steps_in_where_uv_fails(bootstrap, record, capsys):
    record.failing = {"uv"}
    assert bootstrap.main(["start"]) == 0
    assert steps(record) == ["venv", "uv", "uv libraries", "pip libraries", "pip package", "command"]
    assert "pip tries next" in capsys.readouterr().err


def test_failures_are_sentences(bootstrap, record):
    record.failing = {"-r"}
    with pytest.raises(SystemExit, match="check network and disk, then run the same command again"):
        bootstrap.main(["start"])
    assert not bootstrap.STAMP.exists() and "command" not in steps(record)


def test_a_missing_venv_module_is_a_sentence(bootstrap, record):
    record.failing = {"venv"}
    with pytest.raises(SystemExit, match=r"\.venv could not be made .* sudo apt install python3\.\d+-venv"):
        bootstrap.main(["start"])


def test_tests_and_notebooks(bootstrap, clone, record):
    (clone / "notebooks").mkdir()
    (clone / "notebooks" / "00_start.ipynb").touch()
    bootstrap.main(["test"])
    assert "--nbval-lax --nbval-current-env --nbval-cell-timeout=300 tests" in record[-1]
    assert record[-1].endswith("00_start.ipynb")
    bootstrap.main(["test", "-k", "flow"])
    assert record[-1].endswith("--nbval-cell-timeout=300 -k flow")


def test_tests_run_offline(bootstrap, clone, monkeypatch):
    seen = {}
    monkeypatch.setattr(bootstrap, "install", lambda: None)
    monkeypatch.setattr(bootstrap, "run", lambda command, **options: seen.update(options) or 5)
    assert bootstrap.main(["test"]) == 5
    assert seen["cwd"] == clone and seen["env"]["HF_HUB_OFFLINE"] == "1" and "PATH" in seen["env"]


# ------------------------------------------------------------------ for real


@pytest.fixture
def ready(clone, bootstrap):
    """A clone whose (empty) environment counts as installed."""
    venv.create(clone / ".venv", symlinks=os.name != "nt")
    bootstrap.STAMP.write_text(bootstrap.wanted())
    return clone


def start(clone, *words, **options):
    command = [sys.executable, str(clone / "bootstrap.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=clone, **options)


def test_repeating_installs_nothing_and_passes_on_the_exit_code(ready):
    done = start(ready, "7", "two words", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (7, "echo 7 two words\n", "")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_command_ended_by_a_signal(ready):
    (ready / "blip3o_mini" / "__main__.py").write_text("import os; os.kill(os.getpid(), 15)")
    assert start(ready, "start").returncode == 128 + 15


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_for_the_command_to_answer(ready):
    (ready / "blip3o_mini" / "__main__.py").write_text(
        "import sys, time\n"
        "try:\n    print('up', flush=True); time.sleep(30)\n"
        "except KeyboardInterrupt:\n    print('saved'); sys.exit(3)\n"
    )
    command = [sys.executable, str(ready / "bootstrap.py"), "lab"]
    child = subprocess.Popen(
        command, cwd=ready, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    assert child.stdout.readline() == "up\n"
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to both
    assert child.communicate(timeout=20)[0] == "saved\n" and child.returncode == 3
