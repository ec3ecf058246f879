"""The page in a real browser, opened from disk with the network off."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import lc_engine as lc
from helpers import tiny_language_model as tiny
from helpers.browser import needs_chromium, opened
from helpers.pages_of_scores import HOSTILE, blobs, folder_of_images, scored
from lc_engine.data.ids import read_id_lines
from lc_engine.language.scorer import CausalLMScorer

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("selenium", reason="selenium is not installed")
    with opened(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def show(browser, page):
    browser.get(page.as_uri())
    until(browser, "return document.documentElement.dataset.ready")


def until(browser, script, *arguments, seconds=30):
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script, *arguments)):
        assert time.monotonic() < end, (script, browser.get_log("browser"))
        time.sleep(0.05)
    return found


def errors(browser):
    return [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


PINNED = 'return document.getElementById("pins").textContent.includes(arguments[0])'
PIXEL_OF = """
const chart = document.getElementById("points"), shape = chart._fullLayout;
chart.scrollIntoView({block: "center", behavior: "instant"});
const box = chart.getBoundingClientRect();
return [box.x + shape.xaxis._offset + shape.xaxis.l2p(arguments[0]),
        box.y + shape.yaxis._offset + shape.yaxis.l2p(arguments[1])];
"""
CARD = 'return document.getElementById("card").dataset.row'
SHOWN = """
return document.getElementById("points").data
    .filter((trace) => trace.customdata).reduce((n, trace) => n + trace.x.length, 0);
"""


# Controls that the keyboard does not reach, or that have no name for a screen reader.
UNNAMED = """
return [...document.querySelectorAll("button, input, select")]
    .filter((e) => e.tabIndex < 0 || !(e.textContent.trim() || e.labels?.length || e.ariaLabel))
    .map((e) => e.outerHTML);
"""


def mouse(browser, kind, x, y, **more):
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})


def choose(browser, name, value):
    browser.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        name,
        value,
    )


def isolated(table, count):
    """Return rows that lie far from all others on the map, so that the mouse finds them."""
    xy = np.stack([table.column("lc"), 2 * table.column("lc_std")], 1)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(distance, np.nan)
    return np.argsort(-np.nanmin(np.nan_to_num(distance, nan=9.0), 1), kind="stable")[:count]


def pin(browser, table, row):
    """Point at a row, see its card, and click until it is pinned: a page at work may miss one."""
    id_, at = table.column("id")[row], (table.column("lc")[row], table.column("lc_std")[row])
    for _ in range(10):
        x, y = browser.execute_script(PIXEL_OF, *map(float, at))
        mouse(browser, "mouseMoved", x - 3, y - 3)
        mouse(browser, "mouseMoved", x, y)
        until(browser, CARD + " === arguments[0]", id_)
        for kind in ("mousePressed", "mouseReleased"):
            mouse(browser, kind, x, y, button="left", clickCount=1)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if browser.execute_script(PINNED, id_):
                return
            time.sleep(0.05)
    raise AssertionError(f"row {id_} is not pinned after 10 clicks")


def test_it_opens_without_an_error_and_pointing_and_clicking_show_the_row(browser, tmp_path):
    table = scored(0, rows=40, bad=10**6)
    show(browser, lc.report(table, out=tmp_path / "report.html"))
    assert browser.execute_script(SHOWN) == 40
    ids = table.column("id")
    for row in isolated(table, 3):
        pin(browser, table, row)
    lines = browser.execute_script(
        'return document.getElementById("paths").data.map((t) => [t.name, Array.from(t.y)])'
    )
    assert [name for name, _ in lines] == ids[isolated(table, 3)].tolist()
    want = np.exp(table.column("path_log_probs"))[isolated(table, 3)]
    np.testing.assert_allclose([y for _, y in lines], want, atol=6e-4)
    assert errors(browser) == []


def test_save_ids_gives_a_file_that_select_reads(browser, tmp_path):
    table = scored(0, rows=40, bad=10**6)
    show(browser, lc.report(table, out=tmp_path / "report.html"))
    browser.execute_script(
        "window.saved = [];"
        "URL.createObjectURL = (b) => { b.text().then((t) => window.saved.push(t)); return '#'; };"
        "HTMLAnchorElement.prototype.click = function () { window.saved.push(this.download); };"
    )
    rows = isolated(table, 3)
    for row in rows:
        pin(browser, table, row)
    browser.execute_script('document.getElementById("save-pins").click()')
    until(browser, "return window.saved.length === arguments[0]", 2)
    name, text = browser.execute_script("return window.saved")
    assert name == "ids.txt"
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_id_lines(tmp_path / name) == table.column("id")[rows].tolist()
    assert errors(browser) == []


def test_points_are_drawn_in_light_and_dark_and_on_paper(browser, tmp_path):
    show(browser, lc.report(scored(0, rows=300), out=tmp_path / "report.html"))
    body = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(body) == "rgb(255, 255, 255)"
    browser.execute_script('document.getElementById("theme").click()')
    assert browser.execute_script(body) == "rgb(15, 19, 25)"
    until(browser, 'return document.getElementById("points").layout.paper_bgcolor === "#181e26"')
    width = 'return document.getElementById("points")._fullLayout.width'
    wide = browser.execute_script(width)
    until(browser, "window.dispatchEvent(new Event('beforeprint')); return true")
    assert browser.execute_script(body) == "rgb(255, 255, 255)"
    until(browser, width + " === 660")
    until(browser, "window.dispatchEvent(new Event('afterprint')); return true")
    assert browser.execute_script(body) == "rgb(15, 19, 25)"
    until(browser, width + " === arguments[0]", wide)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert len(printed["data"]) > 20_000
    for name in ("dark", "light"):
        feature = [{"name": "prefers-color-scheme", "value": name}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        until(browser, "return document.documentElement.dataset.theme === arguments[0]", name)
    assert errors(browser) == []


PANELS = {"light": (246, 247, 249), "dark": (24, 30, 38)}
BLUES, OPACITY = {"light": (0, 82, 143), "dark": (61, 155, 219)}, 0.8


@pytest.mark.parametrize("name", ["light", "dark"])
def test_a_picture_of_the_map_has_the_colour_of_a_point_where_a_row_lies(browser, name, tmp_path):
    table = scored(0, rows=40, classes=1, bad=10**6)
    feature = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    show(browser, lc.report(table, out=tmp_path / "report.html"))
    rows = isolated(table, 5)
    places = [(float(table.column("lc")[r]), float(table.column("lc_std")[r])) for r in rows]
    places = [browser.execute_script(PIXEL_OF, *place) for place in places]
    shot = PIL.Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    panel = np.array(PANELS[name])
    want = OPACITY * np.array(BLUES[name]) + (1 - OPACITY) * panel
    for x, y in places:
        np.testing.assert_allclose(shot.getpixel((round(x), round(y))), want, atol=12)
        np.testing.assert_allclose(shot.getpixel((round(x) + 14, round(y) + 3)), panel, atol=12)


def test_filters_count_right(browser, tmp_path):
    table = scored(1, rows=300)
    ok = table.column("status") == "ok"
    kept = table.column("id")[ok][::4]
    show(browser, lc.report(table, None, {"one": kept}, tmp_path / "report.html"))
    ids, labels = table.column("id"), table.column("label")
    is_kept = np.isin(ids, kept)
    cases = [
        ({}, ok),
        ({"class": "2"}, ok & (labels == 2)),
        ({"class": "2", "kept": "0:1"}, ok & (labels == 2) & is_kept),
        ({"kept": "0:0"}, ok & ~is_kept),
        ({"search": "row-1"}, ok & np.char.startswith(ids.astype(str), "row-1")),
    ]
    for given, want in cases:
        for name in ("class", "kept", "search"):
            choose(browser, name, given.get(name, ""))
        count = browser.execute_script('return document.getElementById("count").textContent')
        assert count == f"{want.sum()} points"
        for colour in ("label", "kept:0", "loss"):
            choose(browser, "colour", colour)
            assert browser.execute_script(SHOWN) == want.sum()
    assert errors(browser) == []


def test_columns_of_the_data_and_statuses_are_filters_that_count_right(browser, tmp_path):
    rows = [
        {"instruction": f"Say {i}", "output": "x", "source": "abc"[i * i % 3]} for i in range(90)
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = scored(1, rows=90, classes=0, names=np.arange(90), head={"kind": "lm"})
    ok = table.column("status") == "ok"
    show(browser, lc.report(table, file, out=tmp_path / "report.html", carry=["source"]))
    sources = np.array([row["source"] for row in rows])
    for value, wanted in (("1", "b"), ("0", "a"), ("", None)):
        browser.execute_script(
            "const list = document.querySelector('[data-text=source]'); list.value = arguments[0];"
            "list.dispatchEvent(new Event('input', {bubbles: true}));",
            value,
        )
        want = (ok & ((sources == wanted) | (wanted is None))).sum()
        for colour in ("text:source", "loss"):
            choose(browser, "colour", colour)
            assert browser.execute_script(SHOWN) == want
    shown = "return [...document.querySelectorAll('[data-status]')].filter((r) => !r.hidden).length"
    assert browser.execute_script(shown) == (~ok).sum()
    browser.execute_script(
        "const list = document.getElementById('status'); list.value = 'unreadable';"
        "list.dispatchEvent(new Event('change'));"
    )
    assert browser.execute_script(shown) == (~ok).sum()
    count = browser.execute_script('return document.getElementById("bad-count").textContent')
    assert count == f"{(~ok).sum()} rows"
    assert browser.execute_script(UNNAMED) == []
    assert errors(browser) == []


@pytest.mark.parametrize("points", [200, 40])
def test_points_of_one_sub_model_do_not_lie_on_one_line(browser, tmp_path, points):
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((60, 3)).astype(np.float32), rng.integers(0, 3, 60))
    path, masking = lc.LearningPath.explicit([1.0]), lc.Masking(weights="head")
    scorer = lc.Scorer(torch.nn.Linear(3, 3), head="linear", path=path, masking=masking)
    page = lc.report(lc.score(scorer, data), out=tmp_path / "report.html", points=points)
    assert "score with --save-path" not in page.read_text(encoding="utf-8")
    show(browser, page)
    heights = browser.execute_script(
        'return document.getElementById("points").data.filter((t) => t.customdata)'
        ".flatMap((t) => Array.from(t.y));"
    )
    assert len(set(heights)) == len(heights) == min(points, 60)
    assert np.ptp(heights) > 0.9
    assert "no deviation" in browser.execute_script("return document.body.textContent")
    browser.execute_script('document.querySelector("#galleries [data-pin]").click()')
    assert errors(browser) == []


def test_rows_that_look_like_another_class_are_found_by_a_filter(browser, tmp_path):
    scores, truth, labels = blobs(tmp_path)
    show(browser, lc.report(scores, out=tmp_path / "report.html"))
    choose(browser, "looks", "other")
    assert browser.execute_script(SHOWN) == (truth != labels).sum()
    choose(browser, "colour", "nearest")
    assert browser.execute_script(SHOWN) == (truth != labels).sum()
    browser.execute_script("document.querySelector('#galleries [data-pin]').click()")
    for row in np.flatnonzero(truth != labels)[:2].tolist():
        browser.execute_script(
            f"document.querySelector('#suspicious [data-pin=\"{row}\"]').click()"
        )
        card = browser.execute_script('return document.getElementById("card").textContent')
        assert f"label {labels[row]}looks like {truth[row]}" in card
    assert errors(browser) == []


IMAGES = 'return document.querySelectorAll("img[src=x]").length'


def test_hostile_text_stays_text(browser, tmp_path):
    names = [f"{HOSTILE}{i}" for i in range(8)]
    table = scored(0, rows=8, names=names, bad=10**6)
    selections = {HOSTILE: names[:3], f"{HOSTILE}2": names[2:5]}
    trial = [{"candidate": HOSTILE, "gain": 1.0, "error": 0.5}]
    page = tmp_path / "report.html"
    show(browser, lc.report(table, None, selections, page, title=HOSTILE, trial=trial))
    browser.execute_script('document.querySelectorAll("[data-pin]").forEach((b) => b.click())')
    browser.execute_script(CARD)
    time.sleep(0.3)
    assert browser.title == f"{HOSTILE} · learning complexity"
    assert browser.execute_script('return document.querySelector("h1").textContent') == HOSTILE
    assert browser.execute_script(IMAGES) == 0
    assert errors(browser) == []


def test_hostile_conversations_columns_and_tokens_stay_text(browser, tmp_path):
    rows = [
        {
            "prompt": f"{HOSTILE} {i}",
            "chosen": f"{HOSTILE} yes",
            "rejected": f"{HOSTILE} no",
            HOSTILE: f"{HOSTILE}{i % 3}",
        }
        for i in range(6)
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = CausalLMScorer(
        tiny.model(), tiny.tokenizer(), path=lc.LearningPath.explicit([1.0, 0.8])
    )
    page = tmp_path / "report.html"
    table = lc.score(scorer, file)
    show(browser, lc.report(table, file, out=page, carry=[HOSTILE], scorer=scorer))
    choose(browser, "colour", f"text:{HOSTILE}")
    browser.execute_script('document.querySelector("#galleries [data-pin]").click()')
    sides = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    for where in ("#card .pair .said", "#galleries .pair .said"):
        said = browser.execute_script(sides, where)
        assert said[:2] == [f"{HOSTILE} yes", f"{HOSTILE} no"]
    assert (
        browser.execute_script("return document.querySelectorAll('#card .said span').length") > 20
    )
    assert browser.execute_script(IMAGES) == 0
    assert browser.title == "Score table · learning complexity"
    assert errors(browser) == []


SCREENS = Path(__file__).parent / "screens"
SECTIONS = ("map", "galleries", "selection", "classes")


def section(browser, name, width):
    """Return a section of the page as it looks, `width` pixels wide."""
    box = browser.execute_script(
        "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};",
        name,
    )
    clip = box | {"height": min(box["height"], 900), "scale": 1}
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    image = PIL.Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    return image.resize(
        (width, round(width * image.height / image.width)), PIL.Image.Resampling.BOX
    )


@pytest.mark.parametrize("name", ["light", "dark"])
def test_the_page_looks_as_before(browser, name, tmp_path):
    """Compared at a quarter of its width, as letters differ between machines."""
    table, root = folder_of_images(tmp_path, rows=60)
    ids = table.column("id")
    chosen = {"first": ids[:20], "third": ids[::3]}
    feature = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    show(browser, lc.report(table, root, chosen, tmp_path / "report.html"))
    time.sleep(0.5)
    made = {tmp_path / f"{part}-{name}.webp": section(browser, part, 320) for part in SECTIONS}
    for file, image in made.items():
        image.save(file, quality=85)
    for file, image in made.items():
        reference = SCREENS / file.name
        assert reference.exists(), f"look at {file} and copy it to {reference}"
        want = PIL.Image.open(reference).convert("RGB")
        assert abs(image.height - want.height) <= 6, f"{file} is not as high as {reference}"
        # As it was stored, so that both have what the compression adds.
        got = np.asarray(PIL.Image.open(file).convert("RGB").resize(want.size), float)
        away = np.abs(got - np.asarray(want, float)).max(2)
        assert away.mean() < 4, f"{file} differs from {reference}"
        assert (away > 60).mean() < 0.02, f"{file} differs from {reference}"


def test_the_keyboard_reaches_every_control_and_every_row(browser, tmp_path):
    table = scored(3, rows=30, bad=10**6)
    show(browser, lc.report(table, out=tmp_path / "report.html"))
    from selenium.webdriver.common.keys import Keys

    points = browser.find_element("id", "points")
    points.send_keys(Keys.ARROW_RIGHT)
    order = table.column("id")[np.argsort(table.column("lc"), kind="stable")]
    until(browser, CARD + " === arguments[0]", order[0])
    points.send_keys(Keys.ARROW_RIGHT)
    until(browser, CARD + " === arguments[0]", order[1])
    points.send_keys(Keys.ENTER)
    pins = 'return document.getElementById("pins").textContent.includes(arguments[0])'
    until(browser, pins, order[1])
    unnamed = browser.execute_script(UNNAMED)
    assert unnamed == []


def test_images_are_shown_in_the_galleries_and_in_the_card(browser, tmp_path):
    table, root = folder_of_images(tmp_path, rows=12)
    show(browser, lc.report(table, root, out=tmp_path / "report.html"))
    browser.execute_script('document.querySelector("#galleries [data-pin]").click()')
    until(browser, 'return document.querySelector("#card img")?.naturalWidth === 96')
    loaded = 'return [...document.querySelectorAll("#galleries img")].every((i) => i.alt && i.src)'
    assert browser.execute_script(loaded)
    easiest = table.column("id")[np.argmax(table.column("lc"))]
    assert browser.execute_script(CARD) == easiest
    assert errors(browser) == []
