"""The page of a score table: one HTML file that holds everything it needs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lc_engine._util.atomic_write import atomic_write_text
from lc_engine._util.extras import require
from lc_engine.data.table import ScoreTable
from lc_engine.reporting.content import Content
from lc_engine.reporting.payload import payload
from lc_engine.reporting.run import Run
from lc_engine.reporting.sections import sections, suspicious_csv
from lc_engine.reporting.token_shades import shade_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from lc_engine.language.scorer import CausalLMScorer

# Rows of the map; beyond them it is a density with a sample of as many rows.
DRAWN = 20_000
PREVIEWS = 2_000


def report(
    scores: ScoreTable | str | os.PathLike[str],
    data: Any = None,
    subset: Any = None,
    out: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
    points: int = DRAWN,
    previews: int = PREVIEWS,
    carry: Sequence[str] = (),
    scorer: CausalLMScorer | None = None,
    trial: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> Path:
    """Write one self-contained HTML page about a score table, and its suspicious rows as CSV.

    Args:
        scores: the table, or the file or folder of one.
        data: the data that were scored, for images or texts of rows; None takes those that the
            run's `_config.json` names, if they are still there.
        subset: rows kept, to be shown in all parts of the page: ids, a file that
            `lc-engine select` wrote, a list of files or a mapping of names to either; at most 4.
        out: the HTML file; the CSV is written beside it, as `<stem>.suspicious.csv`.
        title: heading of the page; None takes the name of the scores.
        points: rows that the map draws; of more it draws a sample, over the density of all.
        previews: rows that come with their image or text, those of the galleries first.
        carry: columns of the data, such as the source, to colour, filter and count rows by; they
            are read into memory.
        scorer: the language model that gave the scores, to shade the tokens of the responses in
            the galleries by their NLL under the whole model; one forward of those rows.
        trial: what was tried to choose the selection, as `selection.json` of a pruned data set has
            it: a mapping with "candidate", "gain" and "error" each.
        seed: of the sample.

    Returns:
        The path of the page.

    Raises:
        ValueError: data, subset or carry do not belong to the scores, or the scorer is not of them.
        FileNotFoundError: a file that is not there.
        MissingExtraError: a package of the extra "report" is not installed.
    """
    plotly, jinja2 = require("plotly.offline", "report"), require("jinja2", "report")
    markup = require("markupsafe", "report").Markup  # the package's own files are not escaped
    folder = None if isinstance(scores, ScoreTable) else Path(scores)
    table = scores if isinstance(scores, ScoreTable) else ScoreTable.read(Path(scores))
    run = Run.of(table.metadata, folder)
    run.check_scorer(scorer)
    content = Content(
        table,
        run,
        data=data,
        subset=subset,
        points=points,
        previews=previews,
        seed=seed,
        carry=tuple(carry),
        scorer=scorer,
    )
    out = Path(out)
    assets = files("lc_engine.reporting") / "assets"
    library = plotly.get_plotlyjs()
    script = (assets / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lc_engine.reporting", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shade_of"] = shade_of
    suspicious = out.with_name(f"{out.stem}.suspicious.csv")
    html = environment.get_template("page.html").render(
        sections(content, trial),
        title=title or (folder.name if folder is not None else "") or "Score table",
        csv_name=suspicious.name,
        style=markup((assets / "page.css").read_text(encoding="utf-8")),
        script=markup(script),
        hashes=" ".join(f"'sha256-{_sha256(text)}'" for text in (script, library)),
        library=_packed(library),
        payload=_packed(json.dumps(payload(content), separators=(",", ":"), allow_nan=False)),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(suspicious, suspicious_csv(content))
    atomic_write_text(out, html)
    return out


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
