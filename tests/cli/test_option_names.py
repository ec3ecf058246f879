from __future__ import annotations

import dataclasses
import logging

import pytest

from lc_engine.cli import log
from lc_engine.cli.option_names import ARGUMENTS, RENAMED, WORDS, as_options
from lc_engine.cli.plan import PlanCommand
from lc_engine.cli.prune import PruneCommand
from lc_engine.cli.report import ReportCommand
from lc_engine.cli.score import ScoreCommand
from lc_engine.cli.select import SelectCommand


def test_every_name_is_an_option():
    commands = (PlanCommand, PruneCommand, ReportCommand, ScoreCommand, SelectCommand)
    known = {field.name for command in commands for field in dataclasses.fields(command)}
    assert {*ARGUMENTS, *WORDS, *RENAMED.values()} <= known


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "give one of keep, keep_tokens and keep_bytes",
            "give one of --keep, --keep-tokens and --keep-bytes",
        ),
        (
            "give one of keep, keep_tokens and keep_bytes, not keep and keep_tokens",
            "give one of --keep, --keep-tokens and --keep-bytes, not --keep and --keep-tokens",
        ),
        (
            "always_keep names 3 rows, but keep asks for 2: give more",
            "--always-keep names 3 rows, but --keep asks for 2: give more",
        ),
        ("keep = 9 is a count and must lie", "--keep 9 is a count and must lie"),
        ("keep must be a float", "--keep must be a float"),
        ("gamma must be in [0, 1]", "--gamma must be in [0, 1]"),
        ("balance: a number", "--balance: a number"),
        ("have no column token_count: give keep", "have no column token_count: give --keep"),
        (
            "not found: give a local file with checkpoint=",
            "not found: give a local file with --checkpoint",
        ),
        ('choose one, or head="prototype"', "choose one, or --head prototype"),
        ("take ifd=True (--ifd), by which", "take --ifd, by which"),
        ("score with --save-path (return_path=True) to see", "score with --save-path to see"),
        ("score with return_path=True or", "score with --save-path or"),
        ("pass feature_column=", "pass --feature-column"),
    ],
)
def test_arguments_become_options(text, want):
    assert as_options(text) == want
    assert as_options(want) == want


@pytest.mark.parametrize(
    "text",
    [
        "/data/batch_size/x.npy does not exist",
        "label_column.parquet does not exist",
        "`shard_rows` of a run",
        "column 'label_column' is missing",
        "we keep the weights and the head by its score",
        "my_batch_size is unknown",
        "x=keep_bytes",
        "--config run.json has unknown keys: batch_size",
        "the labels must be integers",
    ],
)
def test_other_words_stay(text):
    assert as_options(text) == text


def test_a_warning_is_printed_once_with_options_and_other_handlers_get_it_as_it_was(capsys, caplog):
    logger = logging.getLogger("lc_engine.somewhere")
    with log.to_stderr():
        for rows in (3, 3, 4):
            logger.warning("noise_guard leaves %d rows", rows)
            logger.info("noise_guard again")
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if line.startswith("--")] == [
        "--noise-guard leaves 3 rows",
        "--noise-guard leaves 4 rows",
    ]
    assert printed.count("noise_guard again") == 3
    assert [one.getMessage() for one in caplog.records].count("noise_guard leaves 3 rows") == 2
