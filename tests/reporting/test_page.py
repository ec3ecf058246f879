"""The page: what it holds, counted from the table by other means."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageColor
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import lc_engine as lc
from helpers.pages_of_scores import HOSTILE, dense, folder_of_images, payload, scored
from lc_engine.cli.main import run
from lc_engine.data.readers.id_files import read_ids
from lc_engine.reporting import content, previews
from lc_engine.reporting.run import Run


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(tmp_path):
    html = read(lc.report(scored(0), out=tmp_path / "report.html"))
    assert re.findall(r"""(?:src|href|action)\s*=\s*["']?(?!#|data:)[^"'\s>]+""", html) == []
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def luminance(colour):
    """WCAG 2.2's relative luminance of sRGB values (3,) of 0 to 255."""
    share = np.asarray(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_points_have_a_contrast_of_3_with_their_panel(theme):
    assets = Path(content.__file__).with_name("assets")
    page, style = (read(assets / name) for name in ("page.js", "page.css"))
    panel = re.findall(r"--panel: (#\w{6})", style)[theme == "dark"]
    listed = re.search(rf"{theme}: \[(.*?)\]", page)[1]
    others = re.search(rf'OTHERS = .*?{theme}: "(#\w+)"', page)[1]
    opacity = float(re.search(r"opacity: ([\d.]+),", page)[1])
    behind = np.array(PIL.ImageColor.getrgb(panel))
    colours = [*re.findall(r"#\w{6}", listed), others]
    assert len(colours) == 11
    for name in colours:
        drawn = opacity * np.array(PIL.ImageColor.getrgb(name)) + (1 - opacity) * behind
        dark, light = sorted([luminance(drawn), luminance(behind)])
        assert (light + 0.05) / (dark + 0.05) >= 3, name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_points_are_the_rows_of_the_table(seed, tmp_path):
    table = scored(seed)
    found = payload(lc.report(table, out=tmp_path / "report.html"))
    ok = table.column("status") == "ok"
    assert found["id"] == table.column("id").tolist()
    assert found["drawn"] == ok.astype(int).tolist()
    for name in ("lc", "loss", "lc_std"):
        values = np.array(found[name], float)
        np.testing.assert_allclose(values, table.column(name), atol=6e-5)
    path = np.exp(table.column("path_log_probs")[ok])
    got = np.array([line for line, is_ok in zip(found["path"], ok, strict=True) if is_ok])
    np.testing.assert_allclose(got, path, atol=6e-4)
    assert found["density"] is None


@pytest.mark.slow
def test_beyond_the_points_a_seeded_sample_and_the_density_of_all_rows(tmp_path):
    table = scored(0, rows=3000)
    one, two, other = (
        payload(lc.report(table, out=tmp_path / "report.html", points=500, seed=seed))
        for seed in (3, 3, 4)
    )
    drawn = [{i for i, d in zip(p["id"], p["drawn"], strict=True) if d} for p in (one, two, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    ok = table.column("status") == "ok"
    assert 350 < len(drawn[0]) <= 500
    rows = np.array(one["density"]["rows"])
    want = np.histogram2d(
        table.column("lc_std")[ok], table.column("lc")[ok], rows.shape, ((0, 0.5), (0, 1))
    )[0]
    assert (rows == want).mean() > 0.999  # float32 against float64 at the edges of bins
    assert rows.sum() == ok.sum()


@pytest.mark.parametrize("seed", [0, 1])
def test_suspicious_rows_are_the_hardest_of_each_class_in_page_and_csv(seed, tmp_path):
    table = scored(seed, rows=900)
    lc.report(table, out=tmp_path / "report.html")
    with (tmp_path / "report.suspicious.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    loss, ids, labels = (table.column(name) for name in ("loss", "id", "label"))
    rank = np.full(900, np.nan)
    for label in range(4):
        of_class = np.flatnonzero((labels == label) & ~np.isnan(loss))
        of_class = of_class[np.argsort(-loss[of_class])]
        rank[of_class] = np.arange(len(of_class)) / (len(of_class) - 1)
    order = np.lexsort((-loss, rank))[:200]
    assert [line["id"] for line in lines] == ids[order].tolist()
    np.testing.assert_allclose([float(line["rank"]) for line in lines], rank[order], rtol=1e-5)
    best = np.exp(table.column("path_log_probs").max(1))
    for line, row in zip(lines, order, strict=True):
        assert line["reason"].startswith(f"loss {loss[row]:.3g}, harder than ")
        assert f"{100 * best[row]:.1f} %" in line["reason"]
        assert ("below 50 % under every sub-model" in line["reason"]) == (best[row] < 0.5)


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    table = scored(0, rows=60)
    ids = table.column("id").astype(object)
    names = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "plain", "a=b"]
    ids[: len(names)] = names
    at = table.table.column_names.index("id")
    table = lc.ScoreTable(table.table.set_column(at, "id", pa.array(ids.tolist())))
    lc.report(table, out=tmp_path / "report.html")
    with (tmp_path / "report.suspicious.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    found = {line["id"] for line in lines}
    ok = {n for n, s in zip(ids, table.column("status"), strict=True) if s == "ok"} & set(names)
    assert {f"'{name}" if name[0] in "=+-@\t" else name for name in ok} <= found
    cells = [cell for line in lines for name, cell in line.items() if name in ("id", "label")]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)
    assert float(lines[0]["loss"]) > 0


def test_selections_are_counted_by_class_by_score_and_against_each_other(tmp_path):
    table = scored(2, rows=800)
    ok = np.flatnonzero(table.column("status") == "ok")
    ids, label, conf = (table.column(name) for name in ("id", "label", "lc"))
    easy = ok[np.argsort(-conf[ok])[:200]]
    other = ok[::3]
    np.save(tmp_path / "easy.npy", ids[easy].astype(str))
    (tmp_path / "other.txt").write_text("".join(f"{i}\n" for i in ids[other]))
    out = lc.report(
        table, None, [tmp_path / "easy.npy", tmp_path / "other.txt"], tmp_path / "report.html"
    )
    html, found = read(out), payload(out)
    want = [int(i in set(ids[easy])) + 2 * int(i in set(ids[other])) for i in found["id"]]
    assert found["kept"] == want
    budget = found["budget"]
    assert sum(group["rows"] for group in budget) == len(ok)
    kept = [sum(g["rows"] * g["shares"][s] for g in budget) for s in range(2)]
    np.testing.assert_allclose(kept, [len(easy), len(other)])
    assert budget[0]["shares"][0] == 0
    assert budget[-1]["shares"][0] == 1
    both = len(set(ids[easy]) & set(ids[other]))
    assert f"easy and other</th><td>{both}</td>" in html
    for number in np.unique(label[ok]):
        kept_here = (label[easy] == number).sum()
        line = re.search(rf'<th scope="row">{number}</th>.*?</tr>', html, re.S)[0]
        assert f'<td class="number">{(label[ok] == number).sum()}</td>' in line
        assert f" · {kept_here}</td>" in line


def test_a_selection_of_other_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of its 2 ids is a scored row"):
        lc.report(scored(0), None, np.array(["no", "such"]), tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match=r"subset: .*gone\.txt does not exist"):
        lc.report(scored(0), None, tmp_path / "gone.txt", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_ids_saved_as_python_objects_are_refused_and_the_remedy_is_named(tmp_path):
    table, path = scored(0), tmp_path / "kept.npy"
    kept = lc.select(table, keep=0.5, strategy="easy")
    np.save(path, kept)
    remedy = re.escape("np.save(path, ids.astype(str))")
    for read in (lambda: lc.report(table, None, path, tmp_path / "x.html"), lambda: read_ids(path)):
        with pytest.raises(ValueError, match=rf"kept\.npy .*{remedy}"):
            read()
    np.save(path, kept.astype(str))
    assert read_ids(path).tolist() == kept.tolist()
    assert sum(payload(lc.report(table, None, path, tmp_path / "x.html"))["kept"]) == len(kept)


def test_ids_that_are_not_scored_are_said(tmp_path):
    table = scored(0)
    html = read(lc.report(table, None, table.column("id"), tmp_path / "report.html"))
    bad = (table.column("status") != "ok").sum()
    assert f"{bad} of the {len(table)} ids of selection are not scored rows" in html


def test_images_are_thumbnails_of_their_rows(tmp_path):
    table, root = folder_of_images(tmp_path, rows=12)
    found = payload(lc.report(table, root, out=tmp_path / "report.html"))
    for i, name in enumerate(found["id"]):
        uri = found["previews"][found["preview"][i]]["image"]
        kind, _, content = uri.partition(",")
        assert kind == "data:image/webp;base64"
        (tmp_path / "x.webp").write_bytes(base64.b64decode(content))
        small = np.asarray(PIL.Image.open(tmp_path / "x.webp").convert("RGB"), float)
        large = np.asarray(PIL.Image.open(root / name).convert("RGB"), float)
        np.testing.assert_allclose(small.mean((0, 1)), large.mean((0, 1)), atol=12)
        assert small.shape == (48, 96, 3)  # the images are 20 by 10


@pytest.mark.parametrize("shape", [(1, 1), (1000, 3), (97, 96), (400, 400)])
def test_a_thumbnail_of_any_image_fits(shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    uri = previews.of_image(previews.thumbnail(PIL.Image.fromarray(noise))).image
    image = PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    assert max(image.size) == previews.SIDE
    assert image.size[0] == max(1, round(96 * shape[1] / max(shape)))


def test_features_have_no_thumbnail():
    for features in (torch.zeros(7), torch.zeros(previews._BYTES, dtype=torch.uint8)):
        assert previews.of_image(features) is None


@pytest.mark.slow
def test_the_page_stays_small_whatever_the_images_weigh(tmp_path, monkeypatch):
    table, root = folder_of_images(tmp_path, rows=60)
    full = payload(lc.report(table, root, out=tmp_path / "report.html"))
    assert len(full["previews"]) == 60
    sizes = {i: len(full["previews"][k]["image"]) for i, k in enumerate(full["preview"])}
    monkeypatch.setattr(content, "PREVIEW_BYTES", 20 * 3 * max(sizes.values()))
    out = lc.report(table, root, out=tmp_path / "report.html")
    shown = [i for i, k in enumerate(payload(out)["preview"]) if k >= 0]
    assert 20 <= len(shown) < 60
    assert 3 * sum(sizes[i] for i in shown) <= content.PREVIEW_BYTES
    assert f"{len(shown)} of the 60 rows of the page come with" in read(out)


def test_other_data_than_those_scored_are_refused(tmp_path):
    _, root = folder_of_images(tmp_path, rows=12)
    other = scored(0, rows=13)
    with pytest.raises(ValueError, match="12 rows, but the score table has 13"):
        lc.report(other, root, out=tmp_path / "report.html")
    other = scored(0, rows=12)
    with pytest.raises(ValueError, match="these are not the data that were scored"):
        lc.report(other, root, out=tmp_path / "report.html")


def test_no_text_of_the_data_is_markup(tmp_path):
    table = scored(0, rows=8, names=[f"{HOSTILE}{i}" for i in range(8)])
    html = read(lc.report(table, out=tmp_path / "report.html", title=HOSTILE))
    assert "<img src=x" not in html
    assert html.count("<script") == 3
    assert html.count("</script>") == 3


def test_conversations_are_shown_as_turns(tmp_path):
    rows = [
        {"instruction": f"Say {i}", "output": f"{HOSTILE} {i}" if i else "x" * 5000}
        for i in range(9)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = scored(0, rows=9, classes=0, names=np.arange(9), head={"kind": "lm"})
    out = lc.report(table, tmp_path / "data.jsonl", out=tmp_path / "report.html")
    found = payload(out)
    for i in range(9):
        turns = found["previews"][found["preview"][i]]["turns"]
        assert turns[0] == ["user", f"Say {i}", None]
        assert turns[1][1].startswith(rows[i]["output"][:1200])
    assert "3,800 more characters" in found["previews"][0]["turns"][1][1]
    html = read(out)
    assert "<img src=x" not in html
    assert 'id="classes"' not in html
    assert "Least expected" in html


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_small_and_empty_tables_have_a_page(rows, tmp_path):
    assert lc.report(scored(0, rows=rows), out=tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_table_without_scores_or_without_a_path_has_a_page(tmp_path):
    html = read(lc.report(scored(0, rows=9, bad=1), out=tmp_path / "report.html"))
    assert "9 of 9 rows have no score" in html
    html = read(lc.report(scored(0, path=False), out=tmp_path / "report.html"))
    assert "score with --save-path" in html
    assert 'id="paths"' not in html


@pytest.mark.slow
def test_the_command_reports_a_folder_and_says_how_to_repeat_the_run(tmp_path, capsys):
    dense(tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "head.safetensors")
    scores = [
        *(
            "score",
            "--model",
            str(tmp_path / "head.safetensors"),
            "--data",
            str(tmp_path / "x.npy"),
        ),
        *("--labels", str(tmp_path / "y.npy"), "--path", "gauss:3", "--save-path"),
        *("--out", str(tmp_path / "scores")),
    ]
    assert run(scores) == 0
    kept = ["--keep", "0.5", "--strategy", "easy", "--out", str(tmp_path / "kept.npy")]
    assert run(["select", str(tmp_path / "scores"), *kept]) == 0
    capsys.readouterr()
    out = tmp_path / "pages" / "report.html"
    asked = ["--subset", str(tmp_path / "kept.npy"), "--out", str(out), "--title", "Features"]
    assert run(["report", str(tmp_path / "scores"), *asked]) == 0
    assert f"page: {out}" in capsys.readouterr().out
    html = read(out)
    assert "<h1>Features</h1>" in html
    command = re.search(r'<code id="command">(.*?)</code>', html)[1]
    for word in ("--model", str(tmp_path / "head.safetensors"), "--path gauss:3", "--save-path"):
        assert word in command
    assert "gauss, 3 sub-models" in html
    assert "features: there is no image or text" in html
    assert sum(payload(out)["kept"]) == 20
    assert run(["report", str(tmp_path / "scores"), *asked, "--format", "png"]) == 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for form, name in (("html", "r.pdf"), ("html", "r"), ("png", "r.parquet")):
        capsys.readouterr()
        other = ["--out", str(tmp_path / name), "--format", form]
        assert run(["report", str(tmp_path / "scores"), *other]) == 2
        assert f"must end with .{form}, by --format {form}" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    (tmp_path / "pruned").mkdir()
    (tmp_path / "scores").rename(tmp_path / "pruned" / "scores")
    assert run(["report", str(tmp_path / "pruned")]) == 2
    assert f"part-*-of-*.parquet: try {tmp_path}/pruned/scores\n" in capsys.readouterr().err


def test_paths_are_as_typed_and_files_that_were_left_out_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense("x.npy", "y.npy", "head.safetensors")
    x, y = np.load("x.npy"), np.load("y.npy")
    (tmp_path / "set").mkdir()
    columns = {"x": pa.FixedSizeListArray.from_arrays(x.ravel(), 16), "label": y}
    pq.write_table(pa.table(columns), "set/a.parquet")
    (tmp_path / "set" / "b.parquet").write_bytes(b"PAR1")
    score = ["score", "--model", "head.safetensors", "--path", "gauss:3", "--out", "scores"]
    assert run([*score, "--data", "set"]) == 3
    assert run(["report", "scores"]) == 0
    html = read(tmp_path / "report.html")
    command = re.search(r'<code id="command">(.*?)</code>', html)[1]
    for typed in ("--model head.safetensors ", "--data set ", "--out scores "):
        assert typed in command
    assert "<dd>set · " in html
    assert "<dd>head.safetensors</dd>" in html
    assert re.search(r'class="warning">File left out: .*b\.parquet cannot be read as Parquet', html)


def test_paths_elsewhere_are_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = {
        str(tmp_path / "photos"): "photos",
        f"web={tmp_path / 'a' / 'b.jsonl'}": f"web={Path('a/b.jsonl')}",
        str(tmp_path): str(tmp_path),
        f"{tmp_path}-other/photos": f"{tmp_path}-other/photos",
        "s3://bucket/photos": "s3://bucket/photos",
    }
    for stored, shown in typed.items():
        behind = Run({}, config={"options": {"model": "m", "data": [stored]}})
        assert behind.command() == f"lc-engine score --model m --data {shown}"
        assert dict(behind.facts())["Data"] == shown


def test_the_library_is_packed_whole(tmp_path):
    from plotly.offline import get_plotlyjs

    html = read(lc.report(scored(0), out=tmp_path / "report.html"))
    packed = re.search(r'id="library">(.*?)<', html)[1]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
