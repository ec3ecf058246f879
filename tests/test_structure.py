"""The rooms of the package: arrows point down, nothing runs in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import structure


@pytest.fixture(scope="module")
def files() -> structure.Graph:
    return structure.file_graph()


def test_no_circle_of_files(files):
    assert structure.circles(files) == []


def test_no_circle_of_rooms(files):
    """Neither among the rooms of the package nor among the children of any room."""
    for package in structure.packages(files):
        assert structure.circles(structure.room_graph(files, package)) == [], package


def test_no_arrow_points_up(files):
    assert structure.upward(files) == []


def test_every_room_has_a_floor(files):
    assert set(structure.room_graph(files)) == set(structure.FLOOR_OF)


def test_the_roots_stay_small():
    root = structure.ROOT
    loose = [path for path in (root / "lc_engine").iterdir() if path.suffix in (".py", ".pyi")]
    assert len(loose) <= 10
    assert len([path for path in (root / "csrc").iterdir() if path.is_file()]) <= 3


def test_imports_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "one.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "import lc_engine.a\n"
        "from . import b\n"
        "if TYPE_CHECKING:\n    from lc_engine.c import D\n"
        "def f():\n    from lc_engine.room import e\n    from .room.e import g\n"
    )
    known = dict.fromkeys(
        [f"lc_engine{rest}" for rest in ("", ".a", ".b", ".c", ".room", ".room.e", ".one")],
        Path("unused"),
    )
    assert structure.imports(path, "lc_engine.one", known) == {
        "lc_engine.a",
        "lc_engine.b",
        "lc_engine.c",
        "lc_engine.room.e",
    }


def test_circles_and_upward_arrows_are_found():
    graph = {
        "lc_engine.ops.x": {"lc_engine.scorer.y"},
        "lc_engine.scorer.y": {"lc_engine.ops.x", "lc_engine.path.z"},
        "lc_engine.path.z": set(),
    }
    assert structure.circles(graph) == [["lc_engine.ops.x", "lc_engine.scorer.y"]]
    assert structure.circles(structure.room_graph(graph)) == [["ops", "scorer"]]
    assert structure.upward(graph) == ["lc_engine.ops.x -> lc_engine.scorer.y"]
