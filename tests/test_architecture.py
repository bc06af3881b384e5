"""The shape of the package: who may import whom, where each big library lives, and other rules a program can check."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "blip3o_mini"

# A module imports only from layers above its own (and from itself, when it is a package).
LAYERS = (
    {"config", "world", "flow", "attention", "sampling", "memory", "placement", "imagefile", "doctor"},
    {"cost", "checkpoint", "tensorfile", "published_config", "tokens", "qwen_chat", "vision", "dit", "decoder", "sdxl"},
    {"backbone", "eva", "published"},
    {"qwen_vl", "objectives", "loading"},
    {"pretrained"},
    {"model"},
    {"conversion"},
    {"data"},
    {"train", "evaluate"},
    {"parity", "lab", "checks"},
    {"start"},
    {"cli"},
    {"__main__", "__init__"},
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}
ALONE = {name: set() for name in ("config", "world", "flow", "attention", "doctor", "imagefile")} | {"cost": {"config"}}
# What serves people rather than the model: the core never imports it.
OUTER = {"lab", "checks", "doctor", "parity", "start", "cost"}

HOMES = {
    "open_clip": {"vision"},
    "transformers": {"backbone", "qwen_vl", "tokens", "qwen_chat"},
    "tokenizers": {"tokens"},
    "diffusers": {"decoder", "sdxl", "objectives"},
    "torch.distributed": {"train"},
    "accelerate": {"placement"},
    "huggingface_hub": {"checkpoint"},
    "datasets": {"data"},
    "webdataset": {"data"},
    "timm": {"eva"},
    "matplotlib": {"lab"},
    "ipywidgets": {"lab"},
    "IPython": {"lab"},
}
HEAVY = {
    "open_clip",
    "transformers",
    "diffusers",
    "datasets",
    "webdataset",
    "torchvision",
    "accelerate",
    "timm",
    "matplotlib",
}
WITHOUT_TORCH = {"config", "world", "cost", "imagefile", "doctor", "cli"}  # cli: at import; its commands may
PRINTS = ("cli/", "lab/", "checks/")

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_DOCSTRING = 330, 70, 16
BANNED_MODULES = re.compile(r"^(utils?|helpers?|common|misc|base|manager|.*_v\d+)$")
# style: one name per concept; these are the others
BANNED_PARAMETERS = {
    "embeds", "feats", "cond", "encoder_hidden_states", "model_output", "cfg", "eps", "vit", "llm", "pred",
}  # fmt: skip
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|TBD)\b|raise NotImplementedError")


def files():
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Name of the top-level module or package that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def statements(tree: ast.AST, *, inside: bool):
    """Import statements, with those inside functions or without; those only for type checkers never."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from (one for branch in node.orelse for one in statements(branch, inside=inside))
        elif inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from statements(node, inside=inside)


def imported(path: Path, *, inside: bool = True) -> set[str]:
    """Full dotted names that a file imports; relative ones are resolved against the package."""
    found = set()
    here = ("blip3o_mini", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in statements(tree_of(path), inside=inside):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        parents = here[: len(here) - node.level] if node.level else ()
        stem = ".".join([*parents, *([node.module] if node.module else [])])
        found |= {f"{stem}.{alias.name}" for alias in node.names} | {stem}
    return found


def own_imports(path: Path) -> set[str]:
    """Top-level modules of this package that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("blip3o_mini.")}
    known = {module_of(file) for file in files()}
    return {name for name in names if name in known}


# ------------------------------------------------------------------ dependency direction


def test_every_module_has_its_layer():
    unplaced = {module_of(path) for path in files()} - LAYER.keys()
    assert not unplaced, f"place {sorted(unplaced)} in LAYERS of this test"


def test_dependencies_point_one_way():
    assert not [
        f"{ids(path)} imports {other}, which stands in the same layer or a later one"
        for path in files()
        for other in own_imports(path) - {module_of(path)}
        if LAYER[other] >= LAYER[module_of(path)]
    ]


def test_the_foundation_stands_alone():
    assert not [
        f"{ids(path)} imports {other}"
        for path in files()
        if module_of(path) in ALONE
        for other in own_imports(path) - {module_of(path)} - ALONE[module_of(path)]
    ]


def test_the_core_knows_no_notebooks_and_no_command_line():
    assert not [
        f"{ids(path)} imports {other}"
        for path in files()
        if module_of(path) not in OUTER | {"cli", "__main__", "__init__"}
        for other in own_imports(path) & OUTER
    ]


def test_only_the_command_line_and_notebooks_know_the_checks():
    assert not [
        f"{ids(path)} imports checks"
        for path in files()
        if module_of(path) not in ("checks", "cli") and "checks" in own_imports(path)
    ]


# ------------------------------------------------------------------ libraries


def test_each_big_library_has_one_home():
    assert not [
        f"{ids(path)} imports {library}, whose home is {' or '.join(sorted(homes))}"
        for path in files()
        for library, homes in HOMES.items()
        if module_of(path) not in homes
        and any(name == library or name.startswith(f"{library}.") for name in imported(path))
    ]


def test_heavy_libraries_are_imported_where_they_are_used():
    """Inside functions: together they take many seconds to import."""
    assert not [
        f"{ids(path)} imports {name} at its top; move that into the function that needs it"
        for path in files()
        for name in imported(path, inside=False)
        if name.partition(".")[0] in HEAVY
    ]


def test_some_modules_need_no_torch():
    assert not [
        f"{ids(path)} imports {name}"
        for path in files()
        if module_of(path) in WITHOUT_TORCH
        for name in imported(path, inside=module_of(path) != "cli")  # commands may, when they run
        if name.partition(".")[0] == "torch"
    ]


def loaded(code: str) -> set[str]:
    """Modules in memory after some imports in a fresh interpreter in which no connection can be made."""
    guard = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('an import opens a connection')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    )
    command = [sys.executable, "-W", "error", "-c", f"{guard}{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_is_quick_and_offline():
    assert not loaded("import blip3o_mini") & (HEAVY | {"torch", "scipy"})


def test_importing_every_module_loads_nothing_heavy():
    names = [".".join(("blip3o_mini", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in files()]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    assert not loaded(f"import importlib\nfor name in {names}: importlib.import_module(name)") & HEAVY


# ------------------------------------------------------------------ house rules


def nodes(*kinds: type):
    """(place, node) of every syntax node of some kinds in the package."""
    for path in files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, kinds):
                yield f"{ids(path)}:{getattr(node, 'lineno', 1)}", node


def test_files_are_short():
    lengths = {ids(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_functions_are_short():
    lengths = {
        f"{place} {node.name}": node.end_lineno - node.lineno + 1
        for place, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


def test_modules_say_what_they_are():
    for path in files():
        text = ast.get_docstring(tree_of(path))
        assert text or not path.read_text(encoding="utf-8").strip(), f"{ids(path)} opens without a docstring"
        assert len((text or "").splitlines()) <= LONGEST_DOCSTRING, f"{ids(path)} opens with an essay"


def test_long_public_functions_say_what_they_do():
    """Where learners read; commands and checks explain themselves in their module's docstring."""
    assert not [
        f"{ids(path)}:{node.lineno} {node.name} has no docstring"
        for path in files()
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node)
        if module_of(path) not in ("cli", "parity") and node.end_lineno - node.lineno >= 15
    ]


def test_names_are_those_of_the_house():
    parts = {part for path in files() for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not [part for part in parts if BANNED_MODULES.match(part)]
    assert not [f"{place} {node.arg}" for place, node in nodes(ast.arg) if node.arg in BANNED_PARAMETERS]


def test_nothing_is_left_unfinished():
    assert not [
        f"{ids(path)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def calls(*names: str):
    """Places where a plain function of one of these names is called."""
    for place, node in nodes(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in names:
            yield place


def test_the_core_does_not_print():
    assert not [place for place in calls("print") if not place.startswith(PRINTS)]


def test_nothing_is_hidden():
    """No star imports (but a package may gather its own parts), no evaluated strings, no borrowed scopes."""
    stars = [
        place
        for place, node in nodes(ast.ImportFrom)
        if any(alias.name == "*" for alias in node.names) and not (node.level == 1 and "__init__" in place)
    ]
    assert not [*stars, *calls("eval", "exec", "locals", "globals")]
