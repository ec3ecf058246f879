"""The time that a chat template sees: one moment for a whole run."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# Moments of a day that any format with a time of day tells apart.
_HOURS: Final = ((0, 0, 0, 0), (13, 47, 58, 123456))


class Clock:
    """A clock that stands still; the `strftime_now` of chat templates.

    Args:
        at: the moment, as `datetime.isoformat` writes a date or a time; None is now.
        formats: of the dates that the template asks for; None if they are not known. Where none
            holds a time of day, the clock keeps the date only, so that runs of a day are equal.

    Raises:
        ValueError: not a moment.
    """

    def __init__(self, at: str | None = None, formats: Collection[str] | None = None) -> None:
        try:
            moment = datetime.now() if at is None else datetime.fromisoformat(at)
        except (TypeError, ValueError):
            raise ValueError(
                f"template_time must be a date or a time such as 2026-07-26, got {at!r}"
            ) from None
        if formats is not None and not any(map(_has_hours, formats)):
            self._moment = moment.replace(hour=0, minute=0, second=0, microsecond=0)
            self.at = self._moment.date().isoformat()
        else:
            self._moment = moment.replace(microsecond=0)
            self.at = self._moment.isoformat()

    def strftime(self, form: str) -> str:
        """Return the moment in a format of `datetime.strftime`."""
        return self._moment.strftime(form)


def _has_hours(form: str) -> bool:
    day = datetime(2026, 7, 26)
    texts = {
        day.replace(hour=h, minute=m, second=s, microsecond=us).strftime(form)
        for h, m, s, us in _HOURS
    }
    return len(texts) > 1
