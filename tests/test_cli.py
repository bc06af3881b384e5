"""The command line: what it accepts, what it prints, and what it refuses (one sentence, exit code 2).

Most tests use a stand-in for the model that draws with the little world, so that they take no time.
"""

import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import cli, start, world
from blip3o_mini.cli.arguments import plain
from blip3o_mini.config import preset

COMMANDS = (
    "start", "generate", "edit", "ask", "caption", "chat", "train", "evaluate", "data", "data build",
    "data inspect", "info", "parity", "convert", "bench", "doctor", "lab",
)  # fmt: skip


class Stand:
    """Answers at once; refuses prompts of more than 20 words, as the real one does at its own limit."""

    config = types.SimpleNamespace(guidance_scale=3.0)
    asked = None

    @classmethod
    def from_pretrained(cls, name, device=None, dtype=None, offload=()):
        Stand.opened = {"dtype": dtype, "offload": offload}
        if name == "nowhere":
            raise FileNotFoundError("there is no checkpoint nowhere; give toy or a folder written by train")
        return cls()

    def parameter_counts(self):
        return {"vision": 1_000_000, "dit": 2_000_000, "total": 3_000_000}

    def generate(self, prompts, num_images=1, *, seed=0, progress=False, **options):
        Stand.asked = {"seed": seed} | {name: value for name, value in options.items() if value is not None}
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if any(len(prompt.split()) > 20 for prompt in prompts):
            raise ValueError("the prompt has 99 tokens, but the context holds 40; shorten it")
        rng = np.random.default_rng([seed, sum(map(len, prompts))])
        scenes = [world.sample_scene(rng) for _ in range(len(prompts) * num_images)]
        return [Image.fromarray(image) for image in world.render(scenes)]

    def edit(self, image, instruction, **options):
        assert image.mode == "RGB"
        return self.generate(instruction, **options)

    def answer(self, image, question):
        return "yes" if image is None else "two"

    def caption(self, image, style="short"):
        return f"a {style} caption"

    def classify(self, image, labels):
        return {label: 1 / len(labels) for label in labels}

    def chat(self, messages, seed=0):
        words = messages[-1]["content"][-1]["text"]
        if words.startswith(("draw", "make")):
            return {
                "role": "assistant",
                "content": [{"type": "image", "image": self.generate(words, seed=seed)[0]}],
            }
        return {"role": "assistant", "content": [{"type": "text", "text": f"turn {len(messages)}"}]}


@pytest.fixture
def stand(monkeypatch, tmp_path):
    """The stand-in in place of the model, and an empty working folder with one picture beside it."""
    module = types.ModuleType("blip3o_mini.model")
    module.Blip3oMini = Stand
    monkeypatch.setitem(sys.modules, "blip3o_mini.model", module)
    Image.new("RGB", (72, 72), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(capsys, *argv):
    """Exit code, stdout, stderr."""
    code = cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


GENERATE = ("generate", "--prompt", "a red star")
BAD = {
    "no such command": ("paint",),
    "no prompt": ("generate",),
    "prompt without value": ("generate", "--prompt"),
    "empty prompt": ("generate", "--prompt", ""),
    "blank prompt": ("generate", "--prompt", " \t "),
    "invalid text": ("generate", "--prompt", "a\udcff"),
    "second prompt empty": (*GENERATE, "--prompt", ""),
    "too long prompt": ("generate", "--prompt", "red " * 50),
    "negative steps": (*GENERATE, "--steps", "-3"),
    "no steps": (*GENERATE, "--steps", "0"),
    "half a step": (*GENERATE, "--steps", "1.5"),
    "guidance word": (*GENERATE, "--guidance-scale", "much"),
    "guidance nan": (*GENERATE, "--guidance-scale", "nan"),
    "guidance inf": (*GENERATE, "--guidance-scale", "inf"),
    "guidance -inf": (*GENERATE, "--guidance-scale", "-inf"),
    "no images": (*GENERATE, "--num-images", "0"),
    "too many images": (*GENERATE, "--prompt", "b", "--num-images", "9999"),
    "negative seed": (*GENERATE, "--seed", "-1"),
    "unknown device": (*GENERATE, "--device", "tpu"),
    "absent device": (*GENERATE, "--device", "cuda:99"),
    "unknown option": (*GENERATE, "--colour", "red"),
    "abbreviated option": (*GENERATE, "--num", "2"),
    "missing checkpoint": (*GENERATE, "--checkpoint", "nowhere"),
    "out is a file": (*GENERATE, "--out", "../file.txt"),
    "out below a file": (*GENERATE, "--out", "../file.txt/out"),
    "edit without image": ("edit", "--instruction", "x"),
    "edit of nothing": ("edit", "--image", "../absent.png", "--instruction", "make it red"),
    "edit of a folder": ("edit", "--image", "..", "--instruction", "make it red"),
    "edit of a broken image": ("edit", "--image", "../broken.png", "--instruction", "make it red"),
    "empty instruction": ("edit", "--image", "../white.png", "--instruction", ""),
    "ask nothing": ("ask", "--question", " "),
    "ask about text": ("ask", "--question", "what?", "--image", "../file.txt"),
    "unknown style": ("caption", "--image", "../white.png", "--style", "poem"),
    "chat with a broken image": ("chat", "--image", "../broken.png", "--message", "hello"),
    "empty message": ("chat", "--message", ""),
    "unknown preset": ("train", "--preset", "huge", "--out", "run"),
    "unknown stage": ("train", "--preset", "tiny", "--out", "run", "--stage", "finetune"),
    "train without out": ("train",),
    "info on unknown preset": ("info", "--preset", "huge"),
    "info on no checkpoint": ("info", "--checkpoint", "absent"),
    "convert without a place": ("convert", "toy"),
    "convert nothing": ("convert", "absent", "--out", "x"),
    "convert what has no published form": ("convert", "toy", "--out", "x"),
    "convert into shards of nothing": ("convert", "toy", "--out", "x", "--shard-size", "0"),
    "inspect nothing": ("data", "inspect", "absent"),
    "unknown data command": ("data", "burn"),
    "unknown benchmark": ("bench", "absent"),
    "unknown notebook": ("lab", "absent"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_writes_nothing(stand, capsys, name):
    code, out, err = run(capsys, *BAD[name])
    assert code == 2 and out == ""
    assert err.startswith("blip3o-mini: ") and err.count("\n") == 1 and len(err) < 300, err
    assert "Traceback" not in err and "Errno" not in err
    assert os.listdir(stand) == []


def test_full_disk_is_one_sentence_and_leaves_nothing(stand, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    code, out, err = run(capsys, *GENERATE, "--num-images", 3)
    assert code == 2 and "no space left on device" in err and out == ""
    assert os.listdir(stand) == []


def test_the_request_is_checked_before_the_model_is_loaded(stand, capsys, monkeypatch):
    monkeypatch.setattr(Stand, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    assert run(capsys, *GENERATE, "--out", "../file.txt")[0] == 2
    assert run(capsys, "caption", "--image", "../broken.png")[0] == 2


def test_generate_writes_numbered_pictures_and_repeats_exactly(stand, capsys):
    for folder in ("a", "b"):
        code, out, err = run(capsys, *GENERATE, "--num-images", 4, "--out", folder, "--seed", 5)
        assert code == 0 and err == "" and f"{folder}{os.sep}0000.png" in out
    names = [f"{k:04d}.png" for k in range(4)]
    assert sorted(os.listdir("a")) == sorted(os.listdir("b")) == names
    contents = [(stand / "a" / name).read_bytes() for name in names]
    assert contents == [(stand / "b" / name).read_bytes() for name in names]
    assert len(set(contents)) == 4


def test_options_reach_the_model(stand, capsys):
    options = ["--steps", 7, "--guidance-scale", 1.5, "--seed", 3, "--decoder-steps", 9, "--negative-prompt", " "]
    code, out, _ = run(capsys, *GENERATE, *options, "--decoder-guidance-scale", 2, "--show-timing")
    decoder = {"decoder_steps": 9, "decoder_guidance_scale": 2.0, "negative_prompt": " "}
    assert code == 0 and Stand.asked == {"steps": 7, "guidance_scale": 1.5, "seed": 3} | decoder
    assert "sampling" in out and "per picture" in out
    assert Stand.opened == {"dtype": None, "offload": ()}
    run(capsys, *GENERATE, "--dtype", "bfloat16", "--offload", "vision", "--offload", "backbone")
    assert Stand.opened == {"dtype": "bfloat16", "offload": ["vision", "backbone"]}
    run(capsys, *GENERATE, "--offload", "dit", "--offload", "auto")
    assert Stand.opened["offload"] == "auto"


def test_edit_ask_and_caption(stand, capsys):
    code, _, _ = run(capsys, "edit", "--image", "../white.png", "--instruction", "add a red star", "--out", "e")
    assert code == 0 and os.listdir("e") == ["0000.png"]
    assert run(capsys, "ask", "--question", "really?") == (0, "yes\n", "")
    assert run(capsys, "ask", "--question", "how many?", "--image", "../white.png") == (0, "two\n", "")
    assert run(capsys, "caption", "--image", "../white.png", "--style", "long") == (0, "a long caption\n", "")


def test_chat_with_messages(stand, capsys):
    code, out, err = run(capsys, "chat", "--message", "draw a star", "--message", "how big?", "--out", "talk")
    assert code == 0 and err == ""
    assert out.splitlines()[1] == f"model: talk{os.sep}0000.png" and out.splitlines()[3] == "model: turn 3"
    assert os.listdir("talk") == ["0000.png"]


def test_chat_reads_lines_and_survives_bad_ones(stand, capsys, monkeypatch):
    lines = [
        "/image ../absent.png",
        "/image ../white.png",
        "",
        "how many?",
        "/dance",
        "draw it",
        "/save",
        "/new",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*lines, "hello", "/quit", "never"])))
    code, out, err = run(capsys, "chat", "--out", "talk")
    assert code == 0 and "absent.png" in err and "/dance is not a command" in err
    assert out.count("model: ") == 3 and out.rstrip().endswith("model: turn 1")
    saved = json.loads((stand / "talk" / "chat.json").read_text())
    assert [turn["role"] for turn in saved] == ["user", "assistant"] * 2
    assert saved[0]["text"] == "[image] how many?" and saved[3]["text"] == "[image]"


def fake_module(monkeypatch, name, **members):
    module = types.ModuleType(f"blip3o_mini.{name}")
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, f"blip3o_mini.{name}", module)
    monkeypatch.setattr(sys.modules["blip3o_mini"], name, module, raising=False)


def test_evaluate_writes_json(stand, capsys, monkeypatch):
    scores, asked = {"checkpoint": "toy", "suites": {"vqa": {"heldout": {"mean": 0.5}}}}, []
    members = {
        "SUITES": ("vqa", "text"),
        "MORE_SUITES": ("probes",),
        "evaluate": lambda model, suites, **k: asked.append(suites) or scores,
        "format_scores": lambda s: "table",
    }
    fake_module(monkeypatch, "evaluate", **members)
    assert run(capsys, "evaluate", "--suite", "vqa,nonsense", "--json", "s.json")[0] == 2
    assert os.listdir(stand) == []
    code, out, _ = run(capsys, "evaluate", "--suite", "vqa", "--json", "new/s.json")
    assert code == 0 and out == "table\n"
    assert json.loads((stand / "new" / "s.json").read_text()) == scores
    assert run(capsys, "evaluate", "--json", "new")[0] == 2
    assert run(capsys, "evaluate", "--suite", "all")[0] == run(capsys, "evaluate", "--suite", "probes,all")[0] == 0
    assert asked == [["vqa"], ["vqa", "text"], ["probes", "vqa", "text"]]  # all: without the diagnosis


def test_parity_exits_1_on_a_miss(stand, capsys, monkeypatch):
    for miss in (False, True):
        fake_module(
            monkeypatch,
            "parity",
            run=lambda f: [f],
            format_table=lambda r: "table",
            failed=lambda r, m=miss: m,
        )
        assert run(capsys, "parity", "folder") == (int(miss), "table\n", "")


@pytest.mark.parametrize("needs_action", [False, True])
def test_doctor_exits_1_when_something_needs_action(capsys, monkeypatch, needs_action):
    members = {"report": list, "format_report": lambda found: "findings", "failed": lambda found: needs_action}
    fake_module(monkeypatch, "doctor", **members)
    assert run(capsys, "doctor") == (int(needs_action), "findings\n", "")


def test_info_knows_presets_and_checkpoints(tiny, capsys):
    code, by_name, _ = run(capsys, "info", "--preset", "tiny")
    assert code == 0 and "tiny" in by_name
    assert run(capsys, "info", "--checkpoint", tiny) == (0, by_name, "")


def test_start_tells_everything_and_draws_one_page(stand, capsys, monkeypatch):
    fake_module(monkeypatch, "evaluate", evaluate=lambda *a, **k: {}, format_scores=lambda s, **_: "the table")
    code, out, err = run(capsys, "start")
    assert code == 0, err
    for words in (
        "text → image",
        "image → text",
        "text → text",
        "image → image",
        "dialogue",
        "the table",
        "lab",
    ):
        assert words in out
    with Image.open("out/start/contact_sheet.png") as page:
        assert page.width >= 1200 and page.height >= 1200
    assert os.listdir("out/start") == ["contact_sheet.png"]


def test_start_says_rightly_what_was_never_seen():
    heldout = {f"{colour} {shape}" for shape, colour in world.HELDOUT_PAIRS}
    counts = {f"{world.NUMBERS[n]} {shape}" for n, shape in world.HELDOUT_COUNTS}
    for prompt, remark in start.DRAW:
        bare = re.sub(r"(three|two|four) \w+ ", r"\1 ", prompt)
        is_heldout = any(words in prompt for words in heldout) or any(words in bare for words in counts)
        assert bool(remark) == is_heldout, prompt


def test_interruption_ends_with_130(stand, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stand, "generate", stop)
    assert run(capsys, *GENERATE) == (130, "", "\nblip3o-mini: stopped\n")
    assert os.listdir(stand) == []


def test_a_bug_keeps_its_traceback(stand, monkeypatch):
    monkeypatch.setattr(Stand, "generate", lambda *_, **__: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(list(GENERATE))


def test_out_of_memory_is_one_sentence(stand, capsys, monkeypatch):
    class OutOfMemoryError(RuntimeError):
        pass

    def burst(*_, **__):
        raise OutOfMemoryError("tried to allocate 3 TiB\nmany lines")

    monkeypatch.setattr(Stand, "generate", burst)
    code, _, err = run(capsys, *GENERATE)
    assert code == 2 and "not enough memory" in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A real model, trained by the command itself for one step per stage."""
    folder = tmp_path_factory.mktemp("tiny")
    command = ("train", "--preset", "tiny", "--scale", "0.01", "--device", "cpu", "--out", str(folder))
    assert cli.main(command) == 0
    return folder


def test_the_real_model_repeats_exactly(tiny, tmp_path, capsys):
    for out in ("a", "b"):
        more = ("--num-images", 4, "--seed", 1, "--steps", 4, "--checkpoint", tiny, "--device", "cpu")
        code, _, err = run(capsys, *GENERATE, *more, "--out", tmp_path / out)
        assert code == 0 and err == ""
    first, second = ([(tmp_path / d / f"{k:04d}.png").read_bytes() for k in range(4)] for d in ("a", "b"))
    assert first == second and len(set(first)) == 4


def test_the_real_model_copes_with_unknown_words(tiny, tmp_path, capsys):
    words = "ein früher Zeppelin über 東京 🙂 <|im_end|> [IMG] {caption} \\n %s"
    where = ("--checkpoint", tiny, "--device", "cpu")
    assert run(capsys, "generate", "--prompt", words, "--steps", 2, *where, "--out", tmp_path)[0] == 0
    assert run(capsys, "ask", "--question", words, *where)[0] == 0
    assert run(capsys, "chat", "--message", words, *where, "--out", tmp_path)[0] == 0


def damage(folder, kind):
    """Harm a checkpoint; return a word that the complaint must contain."""
    if kind == "cut off":
        path = folder / "dit.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        return "dit.safetensors"
    if kind == "vision cut off":
        path = folder / "vision.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        return "vision.safetensors"
    if kind == "part missing":
        (folder / "backbone.safetensors").unlink()
        return "backbone.safetensors"
    if kind == "config missing":
        (folder / "config.json").unlink()
        return "config.json"
    if kind == "config damaged":
        (folder / "config.json").write_text('{"name": "tiny", ')
        return "config.json"
    (folder / "config.json").write_text(preset("toy").to_json())
    return "preset"


@pytest.mark.parametrize(
    "kind", ["cut off", "vision cut off", "part missing", "config missing", "config damaged", "other preset"]
)
def test_a_damaged_checkpoint_is_one_sentence(tiny, tmp_path, capsys, kind):
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(tiny, folder)
    word = damage(folder, kind)
    code, printed, err = run(capsys, *GENERATE, "--checkpoint", folder, "--device", "cpu", "--out", out)
    assert code == 2 and printed == "" and not out.exists()
    assert word in err and err.count("\n") == 1, err


def test_a_prompt_longer_than_the_context_is_one_sentence(tiny, tmp_path, capsys):
    options = ("--checkpoint", tiny, "--device", "cpu", "--out", tmp_path / "out")
    code, _, err = run(capsys, "generate", "--prompt", "a red star and " * 200, *options)
    assert code == 2 and err.count("\n") == 1 and re.search(r"\d+ tokens", err), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(capsys, command):
    code, out, err = run(capsys, *command.split(), "--help")
    assert code == 0 and err == ""
    assert f"blip3o-mini {command}" in out.split("\nexample")[1], "an example that can be pasted"
    assert "Writes:" in out or command == "data"
    assert max(map(len, out.splitlines())) <= 110


def test_examples_in_the_help_are_understood(capsys):
    parser = cli.build_parser()
    for command in COMMANDS:
        run_help = run(capsys, *command.split(), "--help")[1].split("\nexample")[1]
        for line in re.findall(r"^  blip3o-mini (.*)$", run_help, re.M):
            words = shlex.split(line)
            if "--help" not in words:
                assert parser.parse_args(words).run


def test_no_command_shows_the_help(capsys):
    code, out, _ = run(capsys)
    assert code == 0 and all(f"  {command.split()[0]}" in out for command in COMMANDS)


def test_help_imports_nothing_heavy():
    heavy = ["torch", "numpy", "PIL", "matplotlib", "transformers", "diffusers", "open_clip"]
    program = (
        "import sys; from blip3o_mini.cli import main; code = main(['--help']);"
        f"print([m for m in {heavy!r} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_quiet():
    command = f'"{sys.executable}" -m blip3o_mini generate --help | head -n 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: blip3o-mini generate") and done.stderr == ""


def test_python_minus_m_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "blip3o_mini", "paint"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("blip3o-mini: there is no command 'paint'")


@pytest.mark.parametrize("names", ["'a', 'b'", "a, b"])
def test_complaints_do_not_depend_on_the_python_version(names):
    message = f"argument COMMAND: invalid choice: 'x' (choose from {names})"
    assert plain(message, "blip3o-mini") == "there is no command 'x'; choose one of a, b"
