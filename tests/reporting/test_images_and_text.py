"""The page of conversations with images: each beside its picture."""

from __future__ import annotations

import json

import pytest

import lc_engine as lc
from helpers import tiny_image_text as tiny
from helpers.pages_of_scores import payload

pytestmark = pytest.mark.slow


def test_conversations_are_shown_with_their_image_and_shaded(tmp_path):
    model, processor = tiny.qwen()
    rows = []
    for i in range(6):
        asked = {"role": "user", "content": f"<image>\nhello {i}"}
        rows.append({"messages": [asked, {"role": "assistant", "content": f"it is {i}"}]})
        rows[-1]["images"] = [f"{i}.png"]
        tiny.picture(i).save(tmp_path / f"{i}.png")
    rows[3]["images"] = ["gone.png"]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = lc.Scorer.for_causal_lm(model, processor, path=lc.LearningPath.explicit([1.0, 0.5]))
    lc.score(scorer, data, out=tmp_path / "out", progress=False)
    lc.report(tmp_path / "out", data, out=tmp_path / "page.html", scorer=scorer)
    previews = payload(tmp_path / "page.html")["previews"]
    assert ["image" in preview for preview in previews] == [True, True, True, False, True, True]
    for i, preview in enumerate(previews):
        (asked, question, _), (role, answer, tokens) = preview["turns"]
        assert (asked, question, role) == ("user", f"[image] hello {i}", "assistant")
        assert answer == f"it is {i}"
        if "image" in preview:
            assert preview["image"].startswith("data:image/webp;base64,")
            assert "".join(text for text, _ in tokens) == answer
