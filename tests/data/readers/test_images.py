from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.images import encode, to_tensor
from helpers.reading import assert_same, read_rows
from lc_engine.data.faults import ReadError
from lc_engine.data.open import open_source


@pytest.fixture
def folder(tmp_path):
    """A folder of 3 classes (one empty), 12 images of 9 × 7; returns it with the pixels."""
    rng = np.random.default_rng(0)
    pixels = {}
    for i in range(12):
        name = f"{'cat' if i % 3 else 'dog'}/deep/{i:02d}.PNG" if i % 2 else f"cat/{i:02d}.png"
        pixels[name] = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels[name]))
    (tmp_path / "set" / "bird").mkdir()
    (tmp_path / "set" / ".cache").mkdir()
    (tmp_path / "set" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path / "set", pixels


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_rows_classes_and_pixels(folder, num_workers):
    root, pixels = folder
    source = open_source(root, transform=to_tensor, num_workers=num_workers)
    assert source.classes == ["bird", "cat", "dog"]
    names = sorted(pixels)
    assert len(source) == len(names)
    want = [
        (
            name,
            (pixels[name].transpose(2, 0, 1) / np.float32(255)).astype(np.float32),
            {"cat": 1, "dog": 2}[name.split("/")[0]],
            "ok",
            "",
        )
        for name in names
    ]
    for batch_size in (1, 5, 12, 50):
        assert_same(read_rows(source, batch_size), want)
    assert_same(read_rows(source, 2, 3, 8), want[3:8])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.slow
def test_unreadable_images_keep_their_index_and_label(folder, batch_size):
    root, pixels = folder
    names = sorted(pixels)
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    damage = {
        names[0]: encode(noise, "JPEG")[:900],
        names[2]: b"",
        names[5]: b"<html>not found</html>",
        names[9]: encode(pixels[names[9]])[:-40],
        names[11]: encode(noise),  # whole, but of another size than the first row
    }
    for name, content in damage.items():
        (root / name).write_bytes(content)
    (root / names[3]).unlink()
    (root / names[3]).mkdir()
    source = open_source(root, transform=to_tensor, num_workers=2)
    assert len(source) == 11  # a folder is not an image
    rows = read_rows(source, batch_size)
    assert [row[0] for row in rows] == names[:3] + names[4:]
    assert {row[0] for row in rows if row[3] != "ok"} == set(damage)
    assert {row[3] for row in rows} == {"ok", "unreadable"}
    assert all(row[2] == (2 if row[0].startswith("dog") else 1) for row in rows)
    assert "(3, 64, 64)" in rows[-1][4]
    assert "truncated" in rows[0][4].lower()


def test_a_deleted_image_ends_the_run_as_it_may_come_back(folder):
    root, pixels = folder
    source = open_source(root, transform=to_tensor)
    (root / sorted(pixels)[4]).unlink()
    with pytest.raises(ReadError, match=f"{sorted(pixels)[4]} cannot be read: No such file"):
        read_rows(source, 3)


def test_every_image_unreadable(tmp_path):
    for i in range(3):
        path = tmp_path / "a" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no")
    rows = read_rows(open_source(tmp_path, transform=to_tensor), 2)
    assert [row[3] for row in rows] == ["unreadable"] * 3


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    grey = np.arange(36, dtype=np.uint8).reshape(6, 6)
    Image.fromarray(grey).save(tmp_path / "a" / "1.png")
    Image.fromarray(np.stack([grey] * 4, -1)).save(tmp_path / "a" / "2.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "a" / "3.png", transparency=b"\x00\x80\xff")
    rows = read_rows(open_source(tmp_path, transform=to_tensor), 3)
    assert [row[3] for row in rows] == ["ok"] * 3
    np.testing.assert_array_equal(rows[0][1], np.stack([grey] * 3) / np.float32(255))
    np.testing.assert_array_equal(rows[0][1], rows[1][1])


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_is_not_applied_as_torchvision_does_and_datasets_does_not(
    tmp_path, orientation, form
):
    datasets, torchvision = pytest.importorskip("datasets"), pytest.importorskip("torchvision")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    file = tmp_path / "set" / "cat" / f"a.{form.lower()}"
    file.parent.mkdir(parents=True)
    file.write_bytes(encode(stored, form, exif=exif.tobytes()))
    with Image.open(file) as opened:
        plain = np.array(opened.convert("RGB"))
        upright = np.array(ImageOps.exif_transpose(opened.convert("RGB")))
    assert plain.shape != upright.shape or (plain != upright).any()
    theirs, _ = torchvision.datasets.ImageFolder(tmp_path / "set")[0]
    np.testing.assert_array_equal(np.array(theirs), plain)
    column = datasets.Dataset.from_dict({"image": [str(file)], "label": [0]})
    column = column.cast_column("image", datasets.Image())
    np.testing.assert_array_equal(np.array(column[0]["image"].convert("RGB")), upright)
    for data in (tmp_path / "set", column):
        (row,) = read_rows(open_source(data, transform=to_tensor, num_workers=0), 1)
        np.testing.assert_array_equal(row[1], to_tensor(Image.fromarray(plain)).numpy())


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_tiff_is_upright_here_and_in_torchvision(tmp_path, orientation):
    torchvision = pytest.importorskip("torchvision")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "a.tiff").write_bytes(encode(stored, "TIFF", exif=exif))
    theirs, _ = torchvision.datasets.ImageFolder(tmp_path / "set")[0]
    upright = {1: stored, 3: stored[::-1, ::-1], 6: np.rot90(stored, -1)}[orientation]
    np.testing.assert_array_equal(np.array(theirs), upright)
    (row,) = read_rows(open_source(tmp_path / "set", transform=to_tensor, num_workers=0), 1)
    np.testing.assert_array_equal(row[1], to_tensor(theirs).numpy())


def test_inputs_that_are_not_finite(folder):
    root, pixels = folder
    first = pixels[sorted(pixels)[0]]

    def broken(image):
        tensor = to_tensor(image)
        if not np.array_equal(np.array(image), first):
            tensor[0, 0, 0] = float("nan")
        return tensor

    rows = read_rows(open_source(root, transform=broken), 5)
    assert [row[3] for row in rows] == ["ok"] + ["non_finite"] * 11


def test_what_is_wrong_for_every_row_stops_the_run(folder):
    root, _ = folder
    with pytest.raises(ValueError, match="transform is needed"):
        next(open_source(root).batches(4))
    with pytest.raises(ValueError, match="transform must return a tensor, got int"):
        next(open_source(root, transform=lambda image: 3).batches(4))
    with pytest.raises(ValueError, match="num_workers"):
        open_source(root, num_workers=-1)


def test_folders_that_are_no_image_folder(tmp_path):
    with pytest.raises(ValueError, match="one sub-folder per class"):
        open_source(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="no images"):
        open_source(tmp_path)


def test_digest_follows_names_sizes_and_times(folder):
    root, pixels = folder
    digest = open_source(root).digest()
    assert open_source(root).digest() == digest
    path = root / sorted(pixels)[7]
    os.utime(path, ns=(1, 1))
    touched = open_source(root).digest()
    assert touched != digest
    path.rename(path.with_name("renamed.png"))
    assert open_source(root).digest() not in (digest, touched)


def test_the_description_is_the_same_in_every_process(folder):
    described = open_source(folder[0], transform=to_tensor).describe()
    assert "0x" not in described["transform"]
    assert "to_tensor" in described["transform"]


def test_stopping_early_leaves_no_thread(folder):
    before = threading.active_count()
    batches = open_source(folder[0], transform=to_tensor, num_workers=2).batches(2)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
