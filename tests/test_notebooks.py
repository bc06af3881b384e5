"""Every notebook is fit to be read: run from top to bottom, clean outputs, short cells, a true badge line.

What a lesson builds is what the package has: a cell tagged `same-as:blip3o_mini.flow.euler` holds the same syntax
tree as the package's function, annotations and docstrings apart.
Nothing is executed here; `pytest --nbval-lax` does that (`python3 bootstrap.py test`).
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LARGEST, LONGEST, WIDEST = 300_000, 30, 88  # bytes of a notebook, lines of a code cell, letters of a line
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


def attribute(name: str):
    """What a dotted name stands for: the longest part that is a module, then attributes."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


class Bare(ast.NodeTransformer):
    """Takes away what does not change what a program does: annotations and docstrings."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return ast.Assign([node.target], node.value, lineno=node.lineno)
        return node


def skeleton_of(source: str, name: str) -> str:
    """The syntax tree of the function or class that a dotted name ends in, bare."""
    wanted = name.rpartition(".")[-1]
    for node in ast.parse(textwrap.dedent(source)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == wanted:
            return ast.dump(Bare().visit(node), indent=1)
    raise LookupError(f"no function or class {wanted} is written here")


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


def test_no_line_of_code_needs_scrolling(code):
    """88 letters fit beside the file browser of JupyterLab on a laptop."""
    lines = [line for cell in code for line in text_of(cell["source"]).splitlines()]
    assert not [line for line in lines if len(line) > WIDEST]


def test_no_bare_value_is_left_below_a_cell(code):
    values = [text_of(o["data"].get("text/plain", "")) for c in code for o in c["outputs"] if "data" in o]
    assert not [value for value in values if value in ("True", "False", "None")]


def test_build_cells_hold_what_the_package_has(code):
    for cell in code:
        for tag in cell["metadata"].get("tags", []):
            relation, _, name = tag.partition(":")
            if relation in ("same-as", "agrees-with"):
                theirs = attribute(name)  # also what only agrees must exist
            if relation == "same-as":
                assert skeleton_of(text_of(cell["source"]), name) == skeleton_of(inspect.getsource(theirs), name), name


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


def test_trees_are_equal_up_to_words_that_do_nothing():
    package = """
    def double(x: Tensor, by: int = 2) -> Tensor:
        'Twice.'
        y: Tensor = by * x
        return y
    """
    lesson = "import torch\n\ndef double(x, by=2):\n    ### BEGIN SOLUTION\n    y = by * x\n    return y\n"
    assert skeleton_of(package, "a.double") == skeleton_of(lesson, "b.double")
    for written, other in (("by * x", "x * by"), ("return y", "return x"), ("by=2", "by=3")):
        assert skeleton_of(lesson.replace(written, other), "double") != skeleton_of(package, "double")
    with pytest.raises(LookupError, match="no function or class halve"):
        skeleton_of(lesson, "halve")
    assert attribute("pathlib.Path.exists") is Path.exists
