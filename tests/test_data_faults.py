"""Data that nobody cleaned: everything bad is counted, named and left out, up to a limit."""

import io
import json
import tarfile

import pytest
from made_data import BAD, JPG, MENDED, PNG, captions, make_shards, noise_jpg, numbered, stream, write_tar
from PIL import Image

from blip3o_mini import data
from blip3o_mini.data import records
from blip3o_mini.data.stream import fault_log


def read_all(folder, **options):
    """Samples and faults of everything in a folder, in order."""
    made = stream(data.find(folder), lanes=1, shuffle=0, passes=1, limit=1.0, **options)
    return list(made), made.seen, made.counts


def surrounded(members) -> dict:
    """A sample between two sound ones."""
    return {**numbered(1, 1), "odd": members, **numbered(2, 1)}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_bad_sample_is_left_out_and_named(tmp_path, name, kind):
    members, expected = BAD[name]
    write(tmp_path, kind, surrounded(members))
    samples, faults, counts = read_all(tmp_path)
    if name == "dotted names" and kind == "folder":  # files of a folder may have dots in their names
        assert len(samples) == 4 and not faults
        return
    assert captions(samples) == [1, 2] and counts["samples"] == 2
    assert [fault.kind for fault in faults] == [expected] and counts[expected] == 1
    assert faults[0].key == "odd" and faults[0].file.startswith(str(tmp_path)) and "odd" in str(faults[0])
    assert "\n" not in str(faults[0])


@pytest.mark.parametrize("name", MENDED)
@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_what_can_be_mended_is_mended_and_counted(tmp_path, name, kind):
    members, caption, size, mended = MENDED[name]
    if name == "a mask beside it" and kind == "folder":
        return
    write(tmp_path, kind, surrounded(members))
    samples, faults, counts = read_all(tmp_path)
    odd = next(sample for sample in samples if sample.key == "odd")
    assert not faults and len(samples) == 3
    assert (odd.caption, odd.image.size, odd.image.mode, odd.mended) == (caption, size, "RGB", mended)
    assert all(counts[name] == 1 for name in mended)


def write(folder, kind, samples):
    if kind == "tar":
        write_tar(folder / "a.tar", samples)
        return
    for key, members in samples.items():
        for ending, content in members.items():
            (folder / f"{key}.{ending}").write_bytes(content)


# ------------------------------------------------------------------ files as a whole


def test_a_tar_cut_anywhere_is_noticed(tmp_path):
    """The libraries take most of these for complete archives."""
    path = write_tar(tmp_path / "a.tar", numbered(0, 6))
    whole = path.read_bytes()
    end = whole.rindex(b"5") // 512 * 512 + 512  # behind the last member: the end mark follows
    for length in (*range(0, end, 256), end):
        path.write_bytes(whole[:length])
        samples, faults, _ = read_all(tmp_path)
        assert [fault.kind for fault in faults] == ["file cut off or unreadable"], length
        assert f"after {len(samples)} samples" in faults[0].why and captions(samples) == [*range(len(samples))]
    path.write_bytes(whole[: end + 512])
    assert not read_all(tmp_path)[1]


def test_a_damaged_header_does_not_pass_for_the_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", numbered(0, 6))
    whole = bytearray(path.read_bytes())
    header = whole.index(b"000003.png")
    whole[header : header + 6] = b"rotten"
    path.write_bytes(whole)
    write_tar(tmp_path / "b.tar", numbered(6, 2))
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [0, 1, 6, 7] and len(faults) == 1 and "after 2 samples" in faults[0].why


def test_with_a_manifest_what_is_missing_is_counted(tmp_path):
    data.build(tmp_path / "shards", count=12, seed=0)
    shard = tmp_path / "shards" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    samples, faults, _ = read_all(tmp_path / "shards")
    assert f"{12 - len(samples)} of 12 samples are missing" in faults[0].why
    write_tar(shard, numbered(0, 5))  # complete as a tar, but not what was written
    assert [fault.kind for fault in read_all(tmp_path / "shards")[1]] == ["samples missing"]


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\0" * 100, b"x" * 2000])
def test_a_file_that_is_no_tar_is_one_fault(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    write_tar(tmp_path / "b.tar", numbered(0, 2))
    samples, faults, _ = read_all(tmp_path)
    assert len(samples) == 2 and len(faults) == 1 and faults[0].file.endswith("a.tar")


def test_links_and_doubles_in_a_tar_are_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("linked.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name in ("linked.txt", "twice.txt", "twice.jpg", "twice.txt", "../../escaped.txt", "../../escaped.jpg"):
            content = JPG if name.endswith("jpg") else b"x"
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    samples, faults, _ = read_all(tmp_path)
    assert [str(fault).split(": ")[1] for fault in faults] == [
        "linked has a link or a device in place of its .jpg file", "twice has two .txt files",
    ]  # fmt: skip
    assert [sample.key for sample in samples] == ["../../escaped"]  # a name is only a name: nothing is unpacked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def test_huge_members_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LARGEST_FILE", len(JPG))
    big = {"jpg": JPG + bytes(1), "txt": b"x"}
    write_tar(tmp_path / "a.tar", surrounded(big))
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [1, 2] and "bytes (limit" in faults[0].why
    (tmp_path / "a.tar").unlink()
    monkeypatch.setattr(data.samples, "LARGEST_FILE", len(PNG))
    write(tmp_path, "folder", surrounded(big))
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [1, 2] and "bytes (limit" in faults[0].why


def test_hidden_files_and_folders_in_a_tar_belong_to_no_sample(tmp_path):
    extra = {"a/._000001": {"jpg": b"resource fork"}, "__meta__": {"json": b"{}"}}
    write_tar(tmp_path / "a.tar", {**numbered(1, 1), **extra, **numbered(2, 1)})
    assert captions(read_all(tmp_path)[0]) == [1, 2] and not read_all(tmp_path)[1]


# ------------------------------------------------------------------ tables, lists, folders


def parquet(path, rows):
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(str(path))


def test_parquet_rows_come_one_by_one(tmp_path):
    damaged = noise_jpg()[:-600]
    rows = [{"image": {"bytes": PNG, "path": "a.png"}, "caption": str(n)} for n in range(5)]
    rows[1]["image"]["bytes"], rows[3]["caption"] = damaged, None
    parquet(tmp_path / "a.parquet", rows)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [0, 2, 4]
    assert [(fault.key, fault.kind) for fault in faults] == [
        ("row 1", "damaged"), ("row 3", "no caption"), ("", "file cut off or unreadable"),
    ]  # fmt: skip


def test_tables_split_and_resume_like_shards(tmp_path):
    for k in range(2):
        rows = [{"jpg": PNG, "txt": str(n)} for n in range(10 * k, 10 * k + 10)]
        parquet(tmp_path / f"{k}.parquet", rows)
    source = data.find(tmp_path)
    parts = [captions(stream(source, rank=rank, world=2, lanes=4, passes=1, shuffle=3)) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == [*range(20)]


def test_lists_name_their_broken_lines(tmp_path):
    (tmp_path / "pictures").mkdir()
    for n in range(4):
        (tmp_path / "pictures" / f"{n}.png").write_bytes(PNG)
    lines = [json.dumps({"file_name": f"pictures/{n}.png", "text": str(n)}) for n in range(4)]
    lines[1] = lines[1][:-9]
    lines += ["[1, 2]", json.dumps({"file_name": "pictures/9.png", "text": "9"}), '{"text": "alone"}', ""]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [0, 2, 3]
    assert [(fault.key, fault.kind) for fault in faults] == [
        ("line 2", "bad line"), ("line 5", "bad line"), ("line 6", "file cut off or unreadable"),
        ("line 7", "no picture"),
    ]  # fmt: skip


def test_csv_lists(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "metadata.csv").write_text('file_name,caption\na.png,"7"\na.png,\n')
    samples, faults, _ = read_all(tmp_path)
    assert captions(samples) == [7] and [(f.key, f.kind) for f in faults] == [("line 3", "no caption")]


def test_json_tables(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.png", "caption": str(n)} for n in (5, 6)]))
    made = stream(data.find(tmp_path / "list.json"), lanes=1, shuffle=0, passes=1)
    assert captions(made) == [5, 6]


OUTSIDE = ("../outside.png", "/etc/hostname", "https://example.org/a.png", "a\0.png", "x/../../y")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_list_reads_nothing_outside_its_folder(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(PNG)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))
    samples, faults, _ = read_all(tmp_path / "list")
    assert not samples and faults[0].kind == "outside"


def test_folders_below_and_odd_files(tmp_path):
    write(tmp_path, "folder", numbered(1, 1))
    (tmp_path / "below" / ".hidden").mkdir(parents=True)
    write(tmp_path / "below", "folder", numbered(2, 1))
    write(tmp_path / "below" / ".hidden", "folder", numbered(3, 1))
    (tmp_path / "below" / "notes").write_text("x")
    (tmp_path / "000001.PNG").write_bytes(PNG)  # beside 000001.png
    samples, faults, counts = read_all(tmp_path)
    assert captions(samples) == [1, 2] and counts["more pictures beside it"] == 1
    assert [(fault.key, fault.kind) for fault in faults] == [("below/notes", "no picture")]


# ------------------------------------------------------------------ the limit


@pytest.mark.parametrize("workers", [0, 2])
def test_more_than_the_limit_is_one_clear_error(tmp_path, workers):
    samples = numbered(0, 60)
    samples |= {f"bad{n}": {"png": PNG} for n in range(60)}
    write_tar(tmp_path / "a.tar", samples)
    made = stream(data.find(tmp_path), lanes=2, limit=0.1, workers=workers)
    with pytest.raises(ValueError, match=r"^\d+ of \d+ samples cannot be used, more than the limit of 10.0%; the last "
                                         r"one: a.tar: bad\d+ has no caption.*raise the limit$") as caught:  # fmt: skip
        list(made)
    assert "\n" not in str(caught.value) and made.counts["no caption"] >= 20
    strict = stream(data.find(tmp_path), lanes=1, shuffle=0, limit=0.0)
    with pytest.raises(ValueError, match=r"^1 of 61 samples cannot be used, more than the limit of 0.0%"):
        list(strict)
    lenient = stream(data.find(tmp_path), lanes=1, passes=1, limit=0.6)
    assert len(list(lenient)) == 60 and len(lenient.seen) == 60


def test_nothing_but_bad_data_ends(tmp_path):
    write_tar(tmp_path / "a.tar", {"bad": {"png": PNG}})
    with pytest.raises(ValueError, match="samples cannot be used"):
        list(stream(data.find(tmp_path)))


def test_faults_are_written_line_by_line(tmp_path):
    write_tar(tmp_path / "a.tar", surrounded({"jpg": JPG}))
    log = tmp_path / "log" / "faults.jsonl"
    list(stream(data.find(tmp_path), lanes=1, passes=1, report=fault_log(log)))
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"kind": "no caption", "file": str(tmp_path / "a.tar"), "key": "odd",
         "why": "has no caption among its files (.jpg)"},
    ]  # fmt: skip


def test_names_of_strangers_cannot_write_on_the_screen(tmp_path):
    write_tar(tmp_path / "a.tar", {"evil\x1b[2J\n": {"jpg": JPG}})
    _, faults, _ = read_all(tmp_path)
    assert str(faults[0]).isprintable()


# ------------------------------------------------------------------ places


def test_places_are_found(tmp_path):
    make_shards(tmp_path / "s", [1, 1, 1])
    names = [str(tmp_path / "s" / f"{k:03d}.tar") for k in range(3)]
    for place in ("s", "s/*.tar", "s/{000..002}.tar", "s/00{0,1,2}.tar"):
        assert list(data.find(tmp_path / place).shards) == names
    assert data.find("http://nowhere.invalid/{0..3}.tar").shards[3] == "http://nowhere.invalid/3.tar"
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert data.find(tmp_path).kind == "folder"
    for place, sentence in (
        ("absent", "there is nothing at"), ("s/{000..003}.tar", "there is nothing at"), ("s/*.zip", "nothing at"),
        ("a.png", "is no shard"), ("{s,a}*", "mixes|is no shard"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            data.find(tmp_path / place)
