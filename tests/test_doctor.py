"""The check of the installation finds what is wrong, and only that."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from blip3o_mini import doctor
from blip3o_mini.checkpoint import PARTS


@pytest.fixture
def folder(tmp_path):
    """A tiny whole checkpoint."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    for part in doctor.PARTS:
        header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {}}).encode()
        (tmp_path / f"{part}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return tmp_path


def test_parts_are_the_checkpoints():
    assert doctor.PARTS == PARTS


def test_this_environment_is_in_order():
    findings = doctor.report()
    names = [finding.name for finding in findings]
    assert len(names) == len(set(names))
    assert {"Python", "torch", "diffusers", "cores", "memory", "disk", "device", "checkpoint", "notebooks"} <= {*names}
    machine = {"memory", "disk", "checkpoint"}  # may be short here and now, which is no fault of the project
    wrong = [finding for finding in findings if not finding.is_ok and finding.name not in machine]
    assert not wrong, doctor.format_report(wrong)


def test_it_imports_nothing_large():
    code = "from blip3o_mini import doctor; import sys; doctor.report(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "diffusers", "open_clip"} & set(done.stdout.split())


def test_report_shows_remedies_and_a_verdict():
    rows = [
        doctor.Finding("cores", "2"),
        doctor.Finding("torch", "2.1", False, "install it"),
        doctor.Finding("disk", "9"),
    ]
    text = doctor.format_report(rows)
    assert doctor.failed(rows) and not doctor.failed(rows[:1])
    assert "✘ torch  2.1\n         → install it" in text and "✔ cores  2\n" in text
    assert text.endswith("1 of 3 findings needs action")
    assert doctor.format_report(rows[:1]).endswith("everything is in order")


@pytest.mark.parametrize(
    "line, pins, value, is_ok",
    [
        ("numpy>=1", {}, "{version}", True),
        ("numpy>=1", {"numpy": {"1.0", "1.1"}}, "{version} (1.0 or 1.1 was tried)", True),
        ("numpy<1", {}, "{version}, but <1 is needed", False),
        ("no-such-library", {}, "missing", False),
        ('no-such-library; extra == "lab"', {}, "missing, needed for the notebooks", True),
        ('no-such-library; extra == "test"', {}, "missing, needed for the tests", True),
    ],
)
def test_library(line, pins, value, is_ok):
    import numpy

    finding = doctor.library(Requirement(line), pins)
    assert (finding.value, finding.is_ok) == (value.format(version=numpy.__version__), is_ok)
    assert is_ok or finding.remedy


def test_pins_are_read_by_normal_name(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("open-clip-torch==3.3.0\nscipy==1.17 ; python_full_version < '3.12'\nscipy==1.18 ; x\n")
    assert doctor.pins(lock) == {"open-clip-torch": {"3.3.0"}, "scipy": {"1.17", "1.18"}}
    assert doctor.normal("open_clip_torch") == "open-clip-torch"
    assert doctor.pins(tmp_path / "absent") == {}


def test_a_missing_project_is_said(monkeypatch):
    def absent(name):
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", absent)
    (finding,) = doctor.libraries()
    assert not finding.is_ok and "bootstrap.py" in finding.remedy


@pytest.mark.parametrize(
    "builds, is_ok",
    [(("2.15.0", "0.29.2"), True), (("2.15.0+cpu", "0.29.2+cpu"), True), (("2.15.0+cpu", "0.29.2"), False)],
)
def test_torch_and_torchvision_must_be_of_one_kind(monkeypatch, builds, is_ok):
    monkeypatch.setattr(doctor.importlib.metadata, "version", dict(zip(("torch", "torchvision"), builds)).get)
    assert doctor.pairing().is_ok == is_ok


def test_torchs_build_is_read_right():
    import torch

    assert doctor.torch_cuda() == torch.version.cuda


@pytest.mark.parametrize(
    "version, is_ok, has_hint", [((3, 10), False, True), ((3, 12), True, False), ((3, 15), True, True)]
)
def test_python(monkeypatch, version, is_ok, has_hint):
    fake = SimpleNamespace(version_info=(*version, 0), prefix="a", base_prefix="b")
    monkeypatch.setattr(doctor, "sys", fake)
    finding = doctor.python()
    assert (finding.is_ok, bool(finding.remedy)) == (is_ok, has_hint)


@pytest.mark.parametrize(
    "gpu, cuda, value, has_hint",
    [
        (None, "13.2", "cpu: no NVIDIA driver", False),
        (("H200", (13, 2)), "13.2", "cuda: H200", False),
        (("H200", (12, 4)), "13.2", "only up to 12.4", True),
        (("H200", (13, 2)), None, "without CUDA", True),
    ],
)
def test_device(monkeypatch, gpu, cuda, value, has_hint):
    monkeypatch.setattr(doctor, "nvidia", lambda: gpu)
    monkeypatch.setattr(doctor, "torch_cuda", lambda: cuda)
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(platform="linux"))
    finding = doctor.device()
    assert value in finding.value and finding.is_ok and bool(finding.remedy) == has_hint


def test_device_is_what_the_commands_choose():
    from blip3o_mini.checkpoint import choose_device

    assert doctor.device().value.partition(":")[0] == choose_device("auto")[0].type


def test_threads_beyond_the_cores_are_pointed_out(monkeypatch):
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert "OMP_NUM_THREADS=" in doctor.cores().remedy
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert doctor.cores() == doctor.cores()._replace(is_ok=True, remedy="")


def test_little_memory_and_a_full_disk(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**32, available=2**30))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e8))
    for finding in (doctor.memory(), doctor.disk()):
        assert not finding.is_ok and finding.remedy


def test_a_whole_checkpoint(folder):
    assert doctor.checkpoint(folder).is_ok
    assert "no SHA256SUMS" in doctor.checkpoint(folder).value


def test_a_damaged_checkpoint(folder):
    path = folder / "dit.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:5], whole[:20], whole[:-1], whole + b"x", b"\xff" * 64):
        path.write_bytes(damaged)
        finding = doctor.checkpoint(folder)
        assert not finding.is_ok and "dit" in finding.value and "data/toy" in finding.remedy
    path.unlink()
    assert "lacks dit.safetensors" in doctor.checkpoint(folder).value
    assert "no folder" in doctor.checkpoint(folder / "absent").value


def test_a_changed_checkpoint(folder):
    names = sorted(path.name for path in folder.iterdir())
    sums = [f"{doctor.hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))
    assert doctor.checkpoint(folder).value.endswith("as shipped")
    path = folder / "vision.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    finding = doctor.checkpoint(folder)
    assert not finding.is_ok and "vision.safetensors" in finding.value


def test_the_kernel(monkeypatch, tmp_path):
    assert doctor.kernel().is_ok
    place = tmp_path / "share" / "jupyter" / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps({"argv": [os.path.abspath(tmp_path / "gone" / "python"), "-m", "x"]}))
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path))
    finding = doctor.kernel()
    assert not finding.is_ok and "ipykernel install" in finding.remedy
