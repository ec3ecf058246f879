from __future__ import annotations

import tarfile

import numpy as np
import pytest

from helpers.images import encode, pack, to_tensor
from helpers.reading import assert_same, read_rows
from lc_engine.data.open import open_source
from lc_engine.data.readers.unreadable_files import unreadable_files


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)


def opened(path, **options):
    return open_source(path, transform=to_tensor, **options)


def test_samples_of_two_tars_read_as_one(tmp_path):
    pixels = images(7)
    samples = [
        (f"train/{i:03d}.{name}", content)
        for i in range(7)
        for name, content in (
            (("cls"), str(i).encode()),
            ("seg.txt", b"x"),
            ("png", encode(pixels[i])),
        )
    ]
    pack(tmp_path / "a.tar", [("train", None), *samples[:9]])
    pack(tmp_path / "b.tar", samples[9:])
    source = opened(tmp_path)
    want = [
        (
            f"{'ab'[i > 2]}.tar/train/{i:03d}",
            (pixels[i].transpose(2, 0, 1) / np.float32(255)).astype(np.float32),
            i,
            "ok",
            "",
        )
        for i in range(7)
    ]
    for batch_size in (1, 3, 20):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 2, 2, 5), want[2:5])
    assert_same(read_rows(opened(tmp_path / "b.tar"), 9), want[3:])
    assert unreadable_files(source) == {}


def test_each_bad_sample_keeps_its_index(tmp_path):
    good = encode(images(1)[0])
    pack(
        tmp_path / "x.tar",
        [
            ("0.json", b'{"label": 4, "y": 5}'),
            ("0.png", good),
            ("1.png", good),
            ("2.cls", b"2"),
            ("3.cls", b"three"),
            ("3.png", good),
            ("4.cls", b"-1"),
            ("4.jpg", good),
            ("5.cls", b" 5\n"),
            ("5.JPEG", good[:50]),
            ("6.json", b"[1]"),
            ("6.png", good),
        ],
    )
    rows = read_rows(opened(tmp_path / "x.tar"), 3)
    assert [(row[2], row[3]) for row in rows] == [
        (4, "ok"),
        (-1, "bad_label"),
        (2, "unreadable"),
        (-1, "bad_label"),
        (-1, "bad_label"),
        (5, "unreadable"),
        (-1, "bad_label"),
    ]
    assert "no image" in rows[2][4]
    assert "'three'" in rows[3][4]
    assert read_rows(opened(tmp_path / "x.tar", label_column="y"), 1)[0][2] == 5


GOOD = [("0.cls", b"1"), ("0.png", encode(images(1)[0]))]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("../../outside.png", b"x"), "'../../outside.png' lies outside"),
        (("/etc/passwd.png", b"x"), "'/etc/passwd.png' lies outside"),
        (("0.png", "/etc/passwd"), "'0.png' is not a regular file"),
    ],
)
def test_a_tar_that_would_write_outside_its_folder_is_left_out(tmp_path, member, reason):
    pack(tmp_path / "good.tar", GOOD)
    pack(tmp_path / "evil.tar", [*GOOD, member])
    before = sorted(tmp_path.rglob("*"))
    source = opened(tmp_path)
    assert [row[0] for row in read_rows(source, 4)] == ["good.tar/0"]
    assert list(unreadable_files(source)) == ["evil.tar"]
    assert reason in unreadable_files(source)["evil.tar"]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"evil\.tar is not read"):
        opened(tmp_path / "evil.tar")


@pytest.mark.parametrize("how", ["cut", "header", "gzip"])
def test_a_damaged_tar_is_refused_whole(tmp_path, how):
    path = tmp_path / "x.tar"
    pack(path, [*GOOD, ("1.cls", b"2"), ("1.png", GOOD[1][1])])
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[:2100]
    elif how == "header":
        with tarfile.open(path) as tar:
            offset = tar.getmembers()[2].offset
        content[offset + 148 : offset + 156] = b"7777777\0"  # its checksum
    else:
        import gzip

        content = bytearray(gzip.compress(content))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tar (cannot be read as an uncompressed|is damaged)"):
        opened(path)


def samples(names, **extra):
    """Return the members of samples by these names: an image each, then its label."""
    pixels = images(len(names))
    return [
        member
        for i, name in enumerate(names)
        for member in (
            (f"{name}.png", encode(pixels[i])),
            *((f"{name}.{kind}", content) for kind, content in extra.items()),
            (f"{name}.cls", str(i + 4).encode()),
        )
    ]


def read(tmp_path, members, **options):
    pack(tmp_path / "x.tar", members)
    return read_rows(opened(tmp_path / "x.tar", **options), 2)


@pytest.mark.parametrize("folder", ["", "train/", "./"])
@pytest.mark.parametrize("between", ["._{}", ".{}.swp", ".DS_Store"])
def test_hidden_members_are_skipped_wherever_they_lie(tmp_path, folder, between):
    members = []
    for name, content in samples(["000", "001", "002"]):
        members += [(folder + between.format(name), b"\0\5\26\7"), (folder + name, content)]
    rows = read(tmp_path, members)
    assert [(row[0], row[2], row[3]) for row in rows] == [
        (f"x.tar/{folder}00{i}", i + 4, "ok") for i in range(3)
    ]


@pytest.mark.parametrize("name", ["README", "__meta__", "__index__/000.json", "train/LICENSE"])
def test_members_without_a_key_do_not_split_a_sample(tmp_path, name):
    first, *others = samples(["000", "001"])
    rows = read(tmp_path, [first, (name, b"x"), *others])
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("x.tar/000", 4, "ok"),
        ("x.tar/001", 5, "ok"),
    ]


def test_members_without_an_extension_are_counted_and_named(tmp_path, caplog):
    pack(tmp_path / "x.tar", [*samples(["000"]), ("001", GOOD[1][1]), ("LICENSE", b"x")])
    source = opened(tmp_path)
    assert source.describe()["other_members"] == {
        "count": 2,
        "first": ["x.tar/001", "x.tar/LICENSE"],
    }
    assert "2 members have no extension: x.tar/001, x.tar/LICENSE" in caplog.text


def test_two_images_in_a_sample_are_a_status_or_one_is_named(tmp_path):
    members = samples(["000", "001"], jpg=encode(np.zeros((6, 5, 3), np.uint8), "JPEG"))
    rows = read(tmp_path, members)
    assert [(row[2], row[3]) for row in rows] == [(4, "unreadable"), (5, "unreadable")]
    assert "2 images (png, jpg): keep one, or name one as feature_column" in rows[0][4]
    assert [row[1].max() for row in read(tmp_path, members, feature_column="jpg")] == [0, 0]
    rows = read(tmp_path, members, feature_column="webp")
    assert {row[3] for row in rows} == {"unreadable"}
    assert "the sample has no member webp; it has png, jpg, cls" in rows[0][4]


def test_an_image_beside_its_mask_and_dotted_images(tmp_path):
    mask = encode(np.zeros((6, 5, 3), np.uint8))
    rows = read(tmp_path, samples(["000"], **{"seg.png": mask}))
    assert rows[0][3] == "ok"
    assert rows[0][1].max() > 0
    rows = read(tmp_path, samples(["a.rgb", "b.rgb"]))
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("x.tar/a", 4, "ok"),
        ("x.tar/b", 5, "ok"),
    ]


def test_names_that_differ_after_a_dot_only_are_one_sample_that_says_so(tmp_path):
    rows = read(tmp_path, samples(["v1.000", "v1.001", "v1.002"]))
    assert [(row[0], row[3]) for row in rows] == [("x.tar/v1", "unreadable")]
    assert "3 images (000.png, 001.png, 002.png)" in rows[0][4]
    assert "a key ends at the first dot" in rows[0][4]


IMAGES_THEN_LABELS = sorted(samples(["000", "001"]), key=lambda member: member[0][-3:])


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (samples(["000", "000"]), r"sample '000' has two members '000\.png'.*rename"),
        (samples(["000", "001", "000"]), r"sample '000' occurs twice.*rename"),
        ([*samples(["a", "b"]), ("a.png", b"x")], r"sample 'a' occurs twice.*rename"),
        ([*samples(["0"]), ("0.CLS", b"1")], r"sample '0' has two members '0\.CLS'"),
        (IMAGES_THEN_LABELS, r"members of sample '000' are not adjacent.*tar --sort=name"),
        ([*samples(["d/0", "d/1"]), ("d/0.txt", b"x")], r"sample 'd/0' are not adjacent"),
    ],
)
def test_an_archive_whose_keys_are_ambiguous_is_refused(tmp_path, members, reason):
    pack(tmp_path / "good.tar", GOOD)
    pack(tmp_path / "odd.tar", members)
    with pytest.raises(ValueError, match=rf"odd\.tar is not read: .*{reason}"):
        opened(tmp_path / "odd.tar")
    source = opened(tmp_path)
    assert [row[0] for row in read_rows(source, 4)] == ["good.tar/0"]
    assert list(unreadable_files(source)) == ["odd.tar"]


def test_odd_names_of_members_are_ids_of_one_line(tmp_path):
    rows = read(tmp_path, samples(["caf\udce9", "two\nlines"]))
    assert [(row[0], row[3]) for row in rows] == [
        (r"x.tar/caf\udce9", "ok"),
        (r"x.tar/two\x0alines", "ok"),
    ]


def test_samples_are_those_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    members = [
        ("train", None),
        *(member for name, content in samples(["train/0", "train/1", "train/2.x"])
          for member in ((f"train/._{name[6:]}", b"\0\5\26\7"), (name, content))),
        ("train/LICENSE", b"x"),
    ]  # fmt: skip
    pack(tmp_path / "x.tar", members)
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    pipeline = WebDataset._get_pipeline_from_tar
    archive = datasets.DownloadManager().iter_archive(str(tmp_path / "x.tar"))
    want = [
        (f"x.tar/{one['__key__']}", next(v for k, v in one.items() if k.endswith("cls")))
        for one in pipeline("x.tar", archive)
    ]
    assert [(row[0], row[2]) for row in read(tmp_path, members)] == want
    assert len(want) == 3


@pytest.mark.parametrize(("samples", "told"), [(1, True), (2, True), (3, False)])
def test_a_tar_that_is_cut_between_samples_is_told(tmp_path, caplog, samples, told):
    path = tmp_path / "a.tar"
    pixels = images(3)
    pack(path, [(f"{i}.{name}", content) for i in range(3) for name, content in (
        ("cls", b"1"), ("png", encode(pixels[i])),
    )])  # fmt: skip
    if told:
        with tarfile.open(path) as whole:
            end = whole.getmembers()[2 * samples].offset
        path.write_bytes(path.read_bytes()[:end])
    assert len(opened(path)) == samples
    assert (f"a.tar has no end-of-archive block after its {samples} samples" in caplog.text) == told
