"""From a row's fields to conversations, one file per format that instruction sets come in."""

from lc_engine.language.formats.detect import Format, check_format, detect
from lc_engine.language.formats.read import conversations

__all__ = ["Format", "check_format", "conversations", "detect"]
