"""Every notebook is fit to be read: run from top to bottom, clean outputs, short cells, a true badge line.

Nothing is executed here; `pytest --nbval-lax` does that (`python3 bootstrap.py test`).
"""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST, LONGEST = 300_000, 30  # bytes of a notebook, lines of a code cell
# Written in pieces, so that this file does not contain what it looks for.
ROOTS = "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers", "tmp"))
MACHINE_PATH = re.compile(rf"(?<![\w.~:/-])(?:/(?:{ROOTS})/\w|[A-Z]:\\\w)")
WIDGET = "application/vnd.jupyter.widget"


def badge(told: dict) -> str:
    """The line below a notebook's title, from its metadata."""
    exercises = f"{told['exercises']} exercises" if told["exercises"] else "no exercises"
    parts = [f"⏱ {told['minutes']} min on 2 CPU cores", f"{told['gigabytes']} GB", "offline", exercises]
    return " · ".join([*parts, f"after {told['after']}"] if told["after"] else parts)


def text_of(value: str | list[str]) -> str:
    """A notebook stores text as one string or as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def words_of(output: dict) -> str:
    """All that an output says in text; pictures apart."""
    data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
    return "\n".join([text_of(output.get("text", "")), *(text_of(v) for v in data.values() if not isinstance(v, dict))])


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def code(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_is_a_first_notebook():
    assert "00_start" in [path.stem for path in PATHS]


def test_it_was_run_once_from_top_to_bottom(code):
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


def test_outputs_hold_no_warnings_and_no_errors(code):
    for cell in code:
        for output in cell["outputs"]:
            assert output.get("name") != "stderr", text_of(output["text"])
            is_meant = "raises-exception" in cell["metadata"].get("tags", [])
            assert output["output_type"] != "error" or is_meant, output["ename"]


def test_no_machine_is_named(notebook, code):
    texts = [text_of(cell["source"]) for cell in notebook["cells"]]
    texts += [words_of(output) for cell in code for output in cell["outputs"]]
    assert not [match.group() for text in texts if (match := MACHINE_PATH.search(text))]


def test_there_is_no_widget_state_and_no_timing(notebook, code):
    assert "widgets" not in notebook["metadata"]
    assert not [cell["id"] for cell in code if "execution" in cell["metadata"]]
    kinds = [kind for cell in code for output in cell["outputs"] for kind in output.get("data", {})]
    assert not [kind for kind in kinds if kind.startswith(WIDGET)]


def test_pictures_have_alternative_text(code):
    for cell in code:
        for output in cell["outputs"]:
            for kind in output.get("data", {}):
                if kind in ("image/png", "image/jpeg"):
                    told = output["metadata"]
                    assert told.get(kind, {}).get("alt") or told.get("alt"), cell["id"]


def test_code_is_short_and_the_file_small(path, code):
    assert max(text_of(cell["source"]).count("\n") + 1 for cell in code) <= LONGEST
    assert path.stat().st_size <= LARGEST


def test_the_setup_is_at_most_five_lines(code):
    assert len([line for line in text_of(code[0]["source"]).splitlines() if line.strip()]) <= 5


def test_the_kernel_is_the_usual_one(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_the_badge_tells_the_metadata(notebook):
    first = text_of(notebook["cells"][0]["source"])
    assert first.startswith("# ") and badge(notebook["metadata"]["blip3o_mini"]) in first.splitlines()


def test_the_map_names_it(path):
    assert f"({path.name})" in (NOTEBOOKS / "README.md").read_text(encoding="utf-8")


def test_checks_notice_what_they_look_for():
    assert MACHINE_PATH.search("saved in /" + "tmp/page.png") and not MACHINE_PATH.search("out/start/page.png")
    assert badge({"minutes": 2, "gigabytes": 0.9, "exercises": 4, "after": "02"}) == (
        "⏱ 2 min on 2 CPU cores · 0.9 GB · offline · 4 exercises · after 02"
    )
