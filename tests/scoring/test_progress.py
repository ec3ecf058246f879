from __future__ import annotations

import io
import logging
import sys
import time
import types

import pytest
import torch

import lc_engine as lc
from lc_engine.scoring.progress import Progress, reporting


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_terminal(monkeypatch):
    """Put a terminal in place of stderr; a fixture would come before pytest puts its own there."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return made


@pytest.fixture
def notebook(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


@pytest.fixture
def job():
    """A linear head and rows for it."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 4, generator=generator), torch.arange(60) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = torch.nn.Linear(4, 3)
    scorer = lc.Scorer(head, head="linear", masking=lc.Masking(weights="head"))
    return scorer, rows


def test_progress_logs_now_and_then_where_there_is_no_terminal(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("lc_engine.scoring.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("lc_engine.scoring.progress.peak_bytes", lambda: 3 << 30)
    caplog.set_level(logging.INFO, logger="lc_engine")
    with Progress() as progress:
        for i in range(1, 26):
            progress.waited(0.25)
            progress("scores", 1000 + 100 * i, 100_000)
            now[0] += 1.0
    assert progress.rate == pytest.approx(100)
    assert progress.waiting == pytest.approx(0.25)
    assert [record.getMessage() for record in caplog.records] == [
        "scores: 2,100 of 100,000 rows, 100 rows/s, 0:16:19 left, "
        "25% waiting for data, peak 3,072 MiB",
        "scores: 3,100 of 100,000 rows, 100 rows/s, 0:16:09 left, "
        "25% waiting for data, peak 3,072 MiB",
    ]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with Progress() as progress:
        for phase in ("prototypes", "scores"):
            for done in (10, 20):
                progress(phase, done, 20)
                time.sleep(0.002)
    shown = terminal.getvalue()
    assert "prototypes" in shown
    assert "20/20" in shown
    assert "rows/s" in shown
    assert "opening model and data" in shown


def test_a_note_is_a_line_also_beside_a_bar(monkeypatch):
    terminal, lines = on_terminal(monkeypatch), []
    with Progress(lines.append) as progress:
        progress.note("masks: [all]")
    assert "masks: [all]" in terminal.getvalue()
    assert lines == []
    with Progress(lines.append, bar=False) as progress:
        progress.note("masks: [all]")
    assert lines == ["masks: [all]"]


def wait_for(lines, count):
    until = time.monotonic() + 30
    while len(lines) < count:
        assert time.monotonic() < until, f"{count} lines never came: {lines}"
        time.sleep(0.002)


def test_a_phase_without_calls_prints_lines_all_the_same():
    lines = []
    with Progress(lines.append, every=0.01) as progress:
        wait_for(lines, 2)
        progress.begin("choosing a dtype")
        seen = len(lines)
        wait_for(lines, seen + 2)
        progress("scores", 1_000, 4_000)
        seen = len(lines)
        wait_for(lines, seen + 2)
    ended = len(lines)
    time.sleep(0.05)
    assert len(lines) == ended
    kinds = {line.removesuffix("0:00:00 so far") for line in lines}
    assert kinds == {
        "opening model and data: ", "choosing a dtype: ", "scores: 1,000 of 4,000 rows, "
    }  # fmt: skip


def test_between_two_calls_the_lines_have_the_rate():
    lines = []
    with Progress(lines.append, every=0.01) as progress:
        progress("scores", 100, 4_000)
        time.sleep(0.002)
        progress("scores", 200, 4_000)
        seen = len(lines)
        wait_for(lines, seen + 2)
    assert lines[-1].startswith("scores: 200 of 4,000 rows, ")
    assert "rows/s" in lines[-1]


def test_an_announced_phase_goes_on_by_its_first_words():
    lines = []
    with Progress(lines.append, every=0.01) as progress:
        progress.announce("step 2 of 4: scoring")
        wait_for(lines, lines.index("step 2 of 4: scoring") + 2)
    assert lines[-1] == "step 2 of 4: 0:00:00 so far"


def test_no_second_line_soon_after_the_first():
    lines = []
    with Progress(lines.append, every=60) as progress:
        for done in range(200):
            progress("scores", done, 200)
    assert lines == []


def test_a_callback_of_the_caller_is_used_as_it_is(monkeypatch):
    terminal = on_terminal(monkeypatch)

    def callback(phase, done, rows):
        raise AssertionError

    with reporting(callback) as report:
        assert report is callback
    with reporting(False) as report:
        assert report is None
    assert terminal.getvalue() == ""


def test_score_shows_progress_where_someone_looks(job, monkeypatch):
    terminal = on_terminal(monkeypatch)
    lc.score(*job, batch_size=20, progress=False)
    assert terminal.getvalue() == ""
    lc.score(*job, batch_size=20)
    assert "60/60" in terminal.getvalue()


def test_score_prints_nothing_where_no_one_looks(job, capsys):
    lc.score(*job, batch_size=20)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_notebook_gets_lines(notebook, monkeypatch, capsys):
    with reporting(None) as report:
        assert isinstance(report, Progress)
        report._every = 0.0
        for done in range(1, 4):
            report("scores", done, 10)
            time.sleep(0.002)
    assert "scores: 3 of 10 rows, " in capsys.readouterr().err


def test_a_terminal_without_rich_gets_lines(monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with reporting(None) as report:
        report._every = 0.0
        for done in range(1, 4):
            report("scores", done, 10)
            time.sleep(0.002)
    assert "scores: 3 of 10 rows, " in terminal.getvalue()


def test_a_bar_inside_the_caller_s_bar_is_lines(monkeypatch):
    on_terminal(monkeypatch)
    from rich.errors import LiveError
    from rich.live import Live

    def start(self, refresh=False):
        raise LiveError("Only one live display may be active at once")

    monkeypatch.setattr(Live, "start", start)
    with reporting(None) as report:
        assert report._bar is None
