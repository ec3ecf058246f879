from __future__ import annotations

import copy

import numpy as np
import pytest

from helpers import tiny_image_text as tiny
from lc_engine.language.images.encoder import ImageTextEncoder

ANSWERS = ("a hello", "the  in\n漢 it")


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def processor(request):
    return tiny.FAMILIES[request.param]()[1]


def encoder(processor, window=500, **options):
    return ImageTextEncoder(processor, window=window, **options)


def rows_of(*parts):
    asked, more = parts
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[0]}]},
        {"role": "user", "content": more},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWERS[1]}]},
    ]


def image(seed):
    return {"type": "image", "image": tiny.picture(seed, 40 + 9 * seed)}


def text(said):
    return {"type": "text", "text": said}


CONVERSATIONS = {
    "an image": rows_of([image(0), text("hello?")], [text("and then")]),
    "an image per turn": rows_of([text("look: "), image(0)], [image(1), text(" in?")]),
    "two at once": rows_of([image(2), image(1)], [text("the")]),
    "no image": rows_of([text("hello?")], [text("in")]),
}


@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_tokens_and_pixels_are_those_of_the_processor(kind, processor):
    made = encoder(processor)
    batch = next(made.open_source([{"messages": CONVERSATIONS[kind]}]).batches(4))
    assert batch.status == ["ok"], batch.detail
    (row,) = batch.inputs
    wanted = processor.apply_chat_template(
        copy.deepcopy(CONVERSATIONS[kind]), tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids, stop = wanted.pop("input_ids")[0].numpy(), len(row.ids)
    np.testing.assert_array_equal(row.ids, ids[:stop])
    counted = [processor.tokenizer.decode(run) for run in runs(row)]
    assert [one.strip(" ") for one in counted] == list(ANSWERS)
    assert stop == np.flatnonzero(row.response)[-1] + 1
    if kind == "no image":
        assert row.inputs is None
        return
    assert row.inputs.keys() == wanted.keys()
    for name, value in wanted.items():
        own = value[:, :stop] if value.shape == (1, len(ids)) else value
        np.testing.assert_array_equal(row.inputs[name].numpy(), own.numpy())
    assert not row.response[row.ids == processor.image_token_id].any()


def runs(row):
    """The ids of each run of response tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.response.astype(int), [0]])))
    return [row.ids[a:b] for a, b in edges.reshape(-1, 2)]


def status_of(made, row):
    batch = next(made.open_source([row]).batches(1))
    return batch.status[0], batch.detail[0]


def test_tokens_may_grow_together_with_what_stands_around_an_image(monkeypatch):
    """As with Gemma 3, whose line breaks around an image merge with those of the template."""
    processor = tiny.llava()[1]
    kind, real = type(processor), type(processor).replace_image_token

    def spaced(self, *given, **options):
        return "\n" + real(self, *given, **options) + "\n"

    monkeypatch.setattr(kind, "replace_image_token", spaced)
    messages = CONVERSATIONS["an image per turn"]
    (row,) = next(encoder(processor).open_source([{"messages": messages}]).batches(1)).inputs
    merged = processor.tokenizer.convert_tokens_to_ids("ĊĊ")
    assert (row.ids == merged).sum() == 2
    wanted = processor.apply_chat_template(copy.deepcopy(messages), tokenize=True)[0]
    assert row.ids.tolist() == wanted[: len(row.ids)]
    counted = [processor.tokenizer.decode(run) for run in runs(row)]
    assert [one.strip(" ") for one in counted] == list(ANSWERS)


def test_the_image_token_in_a_text_is_no_image(processor):
    made = encoder(processor)
    row = {"messages": rows_of([image(0), text("hi")], [text(f"a {processor.image_token}")])}
    status, detail = status_of(made, row)
    assert status == "image_count"
    assert "2 times" in detail or "more places" in detail


def test_an_image_beyond_the_window_is_too_long(processor):
    messages = CONVERSATIONS["an image per turn"]
    made = encoder(processor)
    (row,) = next(made.open_source([{"messages": messages}]).batches(1)).inputs
    of_images = [processor.image_token_id]
    of_images += processor.tokenizer.convert_tokens_to_ids(["<fake_token_around_image>"])
    last = int(np.flatnonzero(np.isin(row.ids, [i for i in of_images if i is not None]))[-1])
    status, detail = status_of(encoder(processor, window=last), {"messages": messages})
    assert status == "too_long"
    assert "end with an image" in detail
    batch = next(
        encoder(processor, window=last + 1).open_source([{"messages": messages}]).batches(1)
    )
    assert batch.status == ["ok"]
    assert "truncated" in batch.detail[0]
    assert len(batch.inputs[0].ids) == last + 1


def test_the_last_answer_alone_keeps_every_image(processor):
    made = encoder(processor, turns="last")
    (row,) = next(
        made.open_source([{"messages": CONVERSATIONS["an image per turn"]}]).batches(1)
    ).inputs
    assert [processor.tokenizer.decode(run).strip(" ") for run in runs(row)] == [ANSWERS[1]]


def test_reasoning_before_an_answer_can_be_left_out():
    processor = tiny.qwen()[1]
    messages = copy.deepcopy(CONVERSATIONS["an image"])
    messages[1]["content"] = "<think>hm</think>it is"
    for reasoning, wanted in (("score", "<think>hm</think>it is"), ("drop", "it is")):
        made = encoder(processor, reasoning=reasoning)
        (row,) = next(made.open_source([{"messages": messages}]).batches(1)).inputs
        assert processor.tokenizer.decode(runs(row)[0]) == wanted
        assert ("hm" in processor.tokenizer.decode(row.ids)) == (reasoning == "score")
    made = encoder(processor, reasoning="context")
    (row,) = next(made.open_source([{"messages": messages}]).batches(1)).inputs
    assert processor.tokenizer.decode(runs(row)[0]) == "it is"
    assert "hm" in processor.tokenizer.decode(row.ids)


def test_a_processor_without_a_template_is_refused():
    processor = copy.copy(tiny.qwen()[1])
    processor.chat_template = None
    with pytest.raises(ValueError, match="Qwen2VLProcessor has no chat template"):
        encoder(processor)
    made = encoder(processor, chat_template=tiny.QWEN_TEMPLATE)
    assert status_of(made, {"messages": CONVERSATIONS["an image"]})[0] == "ok"


def test_a_template_that_writes_no_images_is_named():
    template = tiny.QWEN_TEMPLATE.replace("<|image_pad|>", "")
    made = encoder(tiny.qwen()[1], chat_template=template)
    status, detail = status_of(made, {"messages": CONVERSATIONS["two at once"]})
    assert (status, "0 times, and the row has 2 images" in detail) == ("image_count", True)


def test_a_processor_that_does_not_tell_what_it_replaces_is_refused(monkeypatch):
    processor = tiny.qwen()[1]
    real = type(processor).__call__

    def silent(self, **options):
        return real(self, **options | {"return_text_replacement_offsets": False})

    monkeypatch.setattr(type(processor), "__call__", silent)
    with pytest.raises(ValueError, match=r"does not say where .* of transformers 5.24"):
        encoder(processor)


def test_an_image_that_the_processor_refuses_is_a_status():
    made = encoder(tiny.qwen()[1])
    wide = {"type": "image", "image": tiny.picture(0, 4000, 4)}
    status, detail = status_of(made, {"messages": rows_of([wide, text("hi")], [text("and")])})
    assert (status, "aspect ratio" in detail) == ("bad_image", True)
