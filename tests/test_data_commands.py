"""data build and data inspect on real data: shards, features, reports and sheets; shards over the network."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from made_data import BAD, JPG, MENDED, PNG, captions, make_shards, numbered, picture, stream, write_tar
from PIL import Image
from safetensors import safe_open

from blip3o_mini import data
from blip3o_mini.cli import main
from blip3o_mini.data import records


@pytest.fixture
def mixed(tmp_path):
    """A tar with sound, mended and bad samples, cut off."""
    samples = {f"{n:04d}": {"png": PNG, "txt": str(n).encode()} for n in range(60)}
    samples |= {f"m{k}": members for k, (members, *_) in enumerate(MENDED.values())}
    samples |= {f"b{k}": members for k, (members, _) in enumerate(BAD.values())}
    path = write_tar(tmp_path / "raw.tar", {**samples, **numbered(100, 5)})
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"104") - 3000])
    return path


def sheet_size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_inspect_tells_everything(mixed, tmp_path, capsys):
    sheet, log = tmp_path / "sheet.png", tmp_path / "log" / "problems.jsonl"
    assert main(["data", "inspect", str(mixed), "--sheet", str(sheet), "--log", str(log)]) == 0
    out = capsys.readouterr().out
    samples = int(out.split(" readable")[0].split()[-1])
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert samples >= 60 + len(MENDED) and len(told) == len(BAD) + 1
    assert "problems: 4 × no caption" in out and "file cut off" in out and "and 1 more in" in out
    assert "mended: 1 × CMYK" in out and "mended: 1 × wrong extension" in out
    assert "width 12 to 16, median 16 px, height 12 to 16, median 12 px" in out
    assert sheet_size(sheet)[0] > 900


def test_inspect_with_workers_counts_the_same(tmp_path, capsys):
    make_shards(tmp_path / "s", [9, 3, 6])
    reports = []
    for workers in ("0", "2"):
        assert main(["data", "inspect", str(tmp_path / "s"), "--workers", workers]) == 0
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1] and "3 shards, 18 readable samples" in reports[0]


def test_build_leaves_out_what_is_bad_and_says_so(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["data", "build", "--out", str(out), "--source", str(mixed), "--shard-size", "30", "--limit", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 × no caption" in said and "problems.jsonl" in said
    assert len((out / "problems.jsonl").read_text().splitlines()) == len(BAD) + 1
    assert main(["data", "inspect", str(out)]) == 0
    report = capsys.readouterr().out
    assert "no problems found" in report and "mended" not in report
    again = stream(data.find(out), lanes=1, shuffle=0, passes=1)
    samples = list(again)
    assert samples[0].key == "00000000" and captions(samples[:60]) == [*range(60)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert sum(told["samples"] for told in manifest.values()) == len(samples)
    assert main(arguments) == 2 and "holds shards already" in capsys.readouterr().err


def test_build_keeps_bytes_shrinks_and_remembers_the_origin(tmp_path, capsys):
    large = picture("JPEG", size=(64, 48))
    write_tar(tmp_path / "raw.tar", {"a/small": {"jpg": JPG, "txt": b"1", "json": b'{"score": 7}'},
                                     "large": {"jpg": large, "txt": b"2"}})  # fmt: skip
    arguments = ["--source", str(tmp_path / "raw.tar"), "--size", "24"]
    assert main(["data", "build", "--out", str(tmp_path / "out"), *arguments]) == 0
    assert "2 samples in 1 shards; nothing was left out" in capsys.readouterr().out
    small, large = records.read(str(tmp_path / "out" / "000000.tar"), "tar")
    assert small.members["jpg"] == JPG
    assert json.loads(small.members["json"]) == {"score": 7, "origin": {"file": "raw.tar", "key": "a/small"}}
    shrunk = data.samples.judge(large)
    assert shrunk.image.size == (32, 24)


def test_build_stops_at_the_limit(tmp_path, capsys):
    write_tar(tmp_path / "raw.tar", {f"b{n}": {"jpg": JPG} for n in range(30)})
    assert main(["data", "build", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "raw.tar")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "22 of 22 samples cannot be used, more than the limit of 5.0%" in error
    assert not list((tmp_path / "out").glob("*.tar")) and not list((tmp_path / "out").glob("*.partial"))


def test_build_of_nothing_says_so(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    arguments = ["data", "build", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "photos")]
    assert main(arguments) == 2 and "not a single sample" in capsys.readouterr().err


def test_build_mixes_and_takes_a_part(tmp_path, capsys):
    for name, first in (("a", 0), ("b", 100)):
        make_shards(tmp_path / name, [20], first=first)
    arguments = ["--source", str(tmp_path / "a"), "--source", str(tmp_path / "b"), "--shuffle", "40", "--count", "25"]
    for out in ("x", "y"):
        assert main(["data", "build", "--out", str(tmp_path / out), *arguments]) == 0
    found = captions(stream(data.find(tmp_path / "x"), lanes=1, shuffle=0, passes=1))
    assert len(found) == 25 and sorted(found[:20]) == [*range(20)] != found[:20] and min(found[20:]) >= 100
    assert (tmp_path / "x" / "000000.tar").read_bytes() == (tmp_path / "y" / "000000.tar").read_bytes()


# ------------------------------------------------------------------ features


def encode(images):
    """Stands for a vision part: the mean colour, (B, 1, 3)."""
    return torch.tensor([[[sum(channel.getdata()) / 300 for channel in image.split()]] for image in images])


def test_features_come_with_their_captions_without_decoding(tmp_path, monkeypatch):
    data.build(tmp_path, count=50, seed=1, shard_size=20)
    data.add_features(tmp_path, encode, "stand-in")
    source = data.find(tmp_path)
    drawn = list(stream(source, lanes=4, shuffle=7, passes=1, seed=2))
    monkeypatch.setattr(data.samples, "decode", lambda *_: pytest.fail("decoded"))
    cached = list(stream(source, lanes=4, shuffle=7, passes=1, seed=2, is_cached=True))
    assert [sample.key for sample in cached] == [sample.key for sample in drawn]
    for one, two in zip(drawn, cached):
        assert two.image is None and torch.equal(two.features, encode([one.image])[0])
    batch = data.Batches(stream(source, is_cached=True, workers=2), 6).at(0)
    assert batch.features.shape == (6, 1, 3) and batch.images == [None] * 6
    with safe_open(tmp_path / "000000.safetensors", "pt") as file:
        assert file.metadata() == {"checkpoint": "stand-in"}
    assert json.loads((tmp_path / "manifest.json").read_text())["000002.tar"]["features"]["shape"] == [10, 1, 3]


def test_missing_or_changed_features_are_named(tmp_path):
    data.build(tmp_path, count=6, seed=1)
    with pytest.raises(ValueError, match=r"no features beside .*; make them"):
        list(stream(data.find(tmp_path), is_cached=True))
    data.add_features(tmp_path, encode, "stand-in")
    path = tmp_path / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert "000000.safetensors: has changed" in data.inspect([data.find(tmp_path)])
    path.unlink()
    assert "000000.safetensors: is missing" in data.inspect([data.find(tmp_path)])


def test_features_of_bad_shards_are_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {**numbered(0, 2), "bad": {"jpg": JPG}})
    (tmp_path / "manifest.json").write_text(json.dumps({"a.tar": {"samples": 3, "sha256": ""}}))
    with pytest.raises(ValueError, match=r"bad has no caption.*sound shards only"):
        data.add_features(tmp_path, encode, "stand-in")


def test_build_with_the_features_of_a_checkpoint(tmp_path, capsys):
    from blip3o_mini import Blip3oMini

    out = tmp_path / "out"
    arguments = ["--count", "5", "--features", "--checkpoint", "toy", "--device", "cpu"]
    assert main(["data", "build", "--out", str(out), *arguments]) == 0
    assert "features of every picture" in capsys.readouterr().out
    (sample,) = list(stream(data.find(out), lanes=1, shuffle=0, passes=1, is_cached=True))[2:3]
    (drawn,) = list(stream(data.find(out), lanes=1, shuffle=0, passes=1))[2:3]
    model = Blip3oMini.from_pretrained("toy", device="cpu")
    torch.testing.assert_close(sample.features, model.encode_images([drawn.image])[0].cpu(), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ the network


@pytest.fixture
def server(tmp_path):
    """A web server of a folder; the first `fail` answers end after half of the bytes."""
    (tmp_path / "web").mkdir()

    class Handler(SimpleHTTPRequestHandler):
        fail = 0

        def log_message(self, *_):
            pass

        def copyfile(self, source, outputfile):
            content = source.read()
            if type(self).fail:
                type(self).fail -= 1
                content = content[: len(content) // 2]
            outputfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address, server.handler = f"http://127.0.0.1:{server.server_port}", Handler
    yield server
    server.shutdown()
    server.server_close()


def test_shards_over_the_network(server, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PAUSE", 0.01)
    make_shards(tmp_path / "web", [7, 5])
    source = data.find(server.address + "/{000..001}.tar")
    assert source.shards[1] == server.address + "/001.tar"
    assert sorted(captions(stream(source, lanes=2, passes=1))) == [*range(12)]
    server.handler.fail = 2  # a line that breaks twice
    broken = stream(source, lanes=1, shuffle=0, passes=1)
    assert captions(broken) == [*range(12)] and not broken.seen
    server.handler.fail = 1000
    cut = stream(source, lanes=1, shuffle=0, passes=1, limit=1.0)
    list(cut)
    assert len(cut.seen) == 2 and cut.seen[0].file == server.address + "/000.tar"
    absent = stream(data.find(server.address + "/absent.tar"), lanes=1, passes=1)
    assert not list(absent) and "404" in absent.seen[0].why


def test_tables_over_the_network(server, tmp_path):
    import datasets

    rows = [{"image": {"bytes": PNG, "path": "a.png"}, "text": str(n)} for n in range(5)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "web" / "a.parquet"))
    assert captions(stream(data.find(server.address + "/a.parquet"), lanes=1, shuffle=0, passes=1)) == [*range(5)]
