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
