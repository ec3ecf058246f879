from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image
import pytest

from helpers.tiny_image_text import picture
from lc_engine.data.readers.records import RowError
from lc_engine.language.conversation import RowImage
from lc_engine.language.images.files import local_path, read_image


def content(form="PNG", **options):
    stream = io.BytesIO()
    picture(0).save(stream, form, **options)
    return stream.getvalue()


def test_an_image_is_the_same_from_a_file_bytes_and_a_data_uri(tmp_path):
    (tmp_path / "a b.png").write_bytes(content())
    uri = "data:image/png;base64," + base64.b64encode(content()).decode()
    file = f"file://{tmp_path}/a%20b.png"
    values = ["a b.png", str(tmp_path / "a b.png"), file, uri, content(), picture(0)]
    values += [{"bytes": content(), "path": "gone.png"}, {"bytes": None, "path": "a b.png"}]
    want = np.asarray(picture(0))
    for value in values:
        found = read_image(RowImage(value, "images[0]", tmp_path))
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), want)


def test_a_camera_s_orientation_is_applied():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    value = content("JPEG", exif=exif)
    found = read_image(RowImage(value, "image"))
    assert found.size == picture(0).size[::-1]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint16, 65535), (np.float32, 1)])
def test_grey_of_16_bits_is_scaled_and_turned_from_a_file_and_from_memory(dtype, top):
    grey = np.linspace(0, top, 20).reshape(4, 5).astype(dtype)
    image, exif, stream = PIL.Image.fromarray(grey), PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(stream, "PNG" if top > 1 else "TIFF", exif=exif)
    want = np.rot90((grey * (255 / top) if top == 1 else grey // 257).astype(np.uint8), -1)
    opened = PIL.Image.open(io.BytesIO(stream.getvalue()))
    for value in (stream.getvalue(), opened):
        found = read_image(RowImage(value, "image"))
        np.testing.assert_array_equal(np.asarray(found), np.stack([want] * 3, axis=-1))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("gone.png", "images\\[2\\] \\(gone.png\\): there is no file"),
        ("https://host/a.png", "is a URL: download it"),
        (b"no image", "not an image that Pillow can read"),
        (content()[:200], "images\\[2\\]: OSError"),
        ("data:image/png;base64,***", "base64 is damaged"),
        ({"bytes": None, "path": None}, "the image is missing"),
        (None, "the image is missing"),
        ({}, "the image is missing"),
        ({"url": "https://host/a.png"}, "\\(https://host/a.png\\): it is a URL: download it"),
        ({"file": "a.png"}, "got the fields file: name it bytes, path, url"),
        (base64.b64encode(bytes(9000)).decode(), "too long for a file: base64 begins with data:"),
        ("A" * 300, "there is no file"),
        (3, "got a int"),
    ],
)
def test_a_missing_or_damaged_image_is_named(value, reason, tmp_path):
    with pytest.raises(RowError, match=reason) as caught:
        read_image(RowImage(value, "images[2]", tmp_path))
    assert caught.value.status == "bad_image"


def test_only_files_have_a_path():
    assert local_path("pictures/a.png") == "pictures/a.png"
    assert local_path({"bytes": None, "path": "a.png"}) == "a.png"
    assert local_path({"url": "a.png"}) == "a.png"
    for value in (b"x", "data:,x", "https://host/a.png", None, {"bytes": b"x", "path": "a.png"}):
        assert local_path(value) is None
