"""Image folders: every file of a class is a row, or is named."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from helpers.images import encode, to_tensor
from helpers.reading import read_rows
from lc_engine.data.open import open_source
from lc_engine.data.readers import image_files
from lc_engine.data.readers.unreadable_files import unreadable_files

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """A folder of the classes a and b with an image each."""
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(encode(PIXELS))
    return tmp_path / "set"


def statuses(root):
    return {row[0]: row[3] for row in read_rows(open_source(root, transform=to_tensor), 4)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.jfif", "JPEG"),
        ("x.JPE", "JPEG"),
        ("x.avif", "AVIF"),
        ("x.jp2", "JPEG2000"),
        ("x", "JPEG"),
        ("x", "GIF"),
        ("x", "BMP"),
        ("x", "TIFF"),
        ("x", "WEBP"),
        ("x", "AVIF"),
        ("photo.jpg.1", "PNG"),
        ("0b1c.download", "JPEG2000"),
    ],
)
def test_an_image_is_a_row_whatever_its_suffix(root, name, kind):
    (root / "a" / name).write_bytes(encode(PIXELS, kind))
    assert statuses(root) == {"a/0.png": "ok", f"a/{name}": "ok", "b/0.png": "ok"}


def test_a_class_of_files_without_suffix_only(root):
    (root / "b" / "0.png").rename(root / "b" / "0")
    assert statuses(root) == {"a/0.png": "ok", "b/0": "ok"}


@pytest.mark.parametrize("suffix", [".heic", ".jxl", ".nef"])
def test_an_image_that_pillow_cannot_decode_is_an_unreadable_row(root, suffix):
    (root / "a" / f"1{suffix}").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert statuses(root)[f"a/1{suffix}"] == "unreadable"


def test_other_files_are_counted_and_named(root, caplog):
    (root / "a" / "notes.txt").write_text("not an image")
    (root / "a" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    (root / "preview.png").write_bytes(encode(PIXELS))
    (root / "a" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    source = open_source(root, transform=to_tensor)
    assert source.describe()["other_files"] == {
        "count": 3,
        "first": ["a/clip.mp4", "a/notes.txt", "preview.png"],
    }
    assert unreadable_files(source) == {}
    assert "3 files are no images of a class: a/clip.mp4, a/notes.txt, preview.png" in caplog.text


def test_a_class_without_images_is_named(root):
    (root / "c").mkdir()
    (root / "c" / "0.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    refused = unreadable_files(open_source(root, transform=to_tensor))
    assert refused == {"c": "class folder c holds no image, but 1 other file, such as c/0.mp4"}


def test_linked_folders_are_followed_as_torchvision_does(root, tmp_path):
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "1.png").write_bytes(encode(PIXELS))
    (root / "a" / "linked").symlink_to(tmp_path / "other")
    (root / "c").symlink_to(tmp_path / "other" / "deep")
    folder = pytest.importorskip("torchvision.datasets").ImageFolder(root)
    source = open_source(root, transform=to_tensor)
    assert source.classes == folder.classes == ["a", "b", "c"]
    rows = read_rows(source, 4)
    assert [(str(root / row[0]), row[2]) for row in rows] == sorted(folder.samples)
    assert {row[3] for row in rows} == {"ok"}


def test_dangling_links_are_rows_or_named(root):
    (root / "a" / "1.png").symlink_to(root / "nowhere.png")
    (root / "a" / "folder").symlink_to(root / "nowhere")
    (root / "c").symlink_to(root / "nowhere")
    source = open_source(root, transform=to_tensor)
    source.digest()
    rows = {row[0]: (row[3], row[4]) for row in read_rows(source, 4)}
    assert rows["a/1.png"][0] == "unreadable"
    assert "FileNotFoundError" in rows["a/1.png"][1]
    assert unreadable_files(source) == {
        "a/folder": "a/folder is a link to nothing",
        "c": "c is a link to nothing",
    }


def test_a_folder_that_links_to_one_above_it_is_named_and_not_followed(root):
    (root / "a" / "loop").symlink_to(root)
    source = open_source(root, transform=to_tensor)
    assert len(source) == 2
    assert unreadable_files(source) == {"a/loop": "a/loop links to a folder that holds it"}


@pytest.mark.parametrize("folder", ["b", "a/deep"])
def test_a_folder_without_permission_is_named(root, monkeypatch, folder):
    (root / folder).mkdir(exist_ok=True)
    scandir = os.scandir

    def denied(path):
        if os.fspath(path) == os.fspath(root / folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(image_files.os, "scandir", denied)
    source = open_source(root, transform=to_tensor)
    assert unreadable_files(source) == {folder: f"{folder} cannot be listed: Permission denied"}
    assert source.classes == ["a", "b"]


def test_a_link_to_itself_is_named(root):
    (root / "a" / "x").symlink_to("x")
    assert unreadable_files(open_source(root, transform=to_tensor)) == {
        "a/x": "a/x is a link that cannot be followed: Too many levels of symbolic links"
    }


def test_a_failing_disk_ends_the_listing(root, monkeypatch):
    def failing(path):
        raise OSError(5, "Input/output error", os.fspath(path))

    monkeypatch.setattr(image_files.os, "scandir", failing)
    with pytest.raises(OSError, match="Input/output error"):
        open_source(root, transform=to_tensor)


def test_a_pipe_is_named_and_not_waited_for(root):
    os.mkfifo(root / "a" / "1.png")
    source = open_source(root, transform=to_tensor)
    assert len(source) == 2
    assert unreadable_files(source) == {"a/1.png": "a/1.png is not a regular file"}


def test_odd_file_names_are_rows_with_ids_of_one_line(root):
    odd = [os.fsdecode(b"caf\xe9.png"), "two\nlines.png"]
    for name in odd:
        (root / "a" / name).write_bytes(encode(PIXELS))
    source = open_source(root, transform=to_tensor)
    source.digest()
    assert statuses(root) == dict.fromkeys(
        ["a/0.png", r"a/caf\udce9.png", r"a/two\x0alines.png", "b/0.png"], "ok"
    )


def test_odd_names_of_classes_are_one_line_too(root):
    (root / "a").rename(root / os.fsdecode(b"caf\xe9\n"))
    source = open_source(root, transform=to_tensor)
    assert source.classes == ["b", r"caf\udce9\x0a"]
    assert statuses(root) == {"b/0.png": "ok", r"caf\udce9\x0a/0.png": "ok"}


RAMP = np.linspace(0, 1, 400).reshape(20, 20)
GREY = (RAMP * 255).astype(np.uint8)


def decoded(array, kind):
    from lc_engine.data.readers.images import decode_image

    return np.array(decode_image(encode(array, kind)))


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.uint16), "PPM"),
        (RAMP.astype(np.float32), "TIFF"),
    ],
)
def test_deep_grey_is_scaled_to_8_bits(array, kind):
    np.testing.assert_array_equal(decoded(array, kind), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        ((RAMP * 1e6).astype(np.int32), "32-bit integers"),
        ((RAMP * 255).astype(np.float32), "floats from 0 to 255"),
        (RAMP.astype(np.float32) - 0.5, "floats from -0.5 to 0.5"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "NaN or infinite"),
    ],
)
def test_depths_of_unknown_range_are_a_status(array, reason):
    with pytest.raises(ValueError, match=reason):
        decoded(array, "TIFF")


def test_colour_of_16_bits_becomes_its_upper_8(root):
    # Pillow cannot write it: a PPM by hand.
    values = (np.stack([RAMP] * 3, -1) * 65535).astype(">u2")
    content = b"P6 20 20 65535\n" + values.tobytes()
    from lc_engine.data.readers.images import decode_image

    np.testing.assert_allclose(np.array(decode_image(content))[..., 0], GREY, atol=1)


def test_details_hold_no_address_of_an_object(root):
    (root / "a" / "page.jpg").write_text("<html>moved</html>")

    def transform(image):
        if image.size == (7, 7):
            raise RuntimeError(f"no use for {object()} or {io.BytesIO()!r}")
        return to_tensor(image)

    (root / "b" / "7.png").write_bytes(encode(PIXELS[:1, :1].repeat(7, 0).repeat(7, 1)))
    details = [row[4] for row in read_rows(open_source(root, transform=transform), 4)]
    assert details[1] == (
        "ValueError: not an image that Pillow can read: 18 bytes that begin with "
        "b'<html>moved</htm'"
    )
    assert details[2:] == ["", "RuntimeError: no use for <object object> or <_io.BytesIO object>"]


def test_a_detail_is_utf8(root):
    def transform(image):
        raise RuntimeError("odd \udcff name")

    rows = read_rows(open_source(root, transform=transform), 4)
    assert rows[0][4] == r"RuntimeError: odd \udcff name"
