"""The text form of a learning path, such as "geometric:50:0.02~8"."""

from __future__ import annotations

from typing import Final, NamedTuple

FORMS: Final = (
    "geometric[:K[:step]], linear[:K[:lo[:hi]]], gauss[:K[:lo[:hi]]], "
    "clenshaw_curtis[:K[:lo[:hi]]] or explicit:r1,r2,…, with ~n behind it for its n Gauss points "
    '(such as "gauss:8" or "geometric:50:0.02~5")'
)
# Most numbers that a form takes: the number of points, then fractions.
_MOST: Final = {"geometric": 2, "linear": 3, "gauss": 3, "clenshaw_curtis": 3}


class PathText(NamedTuple):
    """The parts of a path's text.

    Attributes:
        form: "explicit", or the name of a form that takes a number of points first.
        numbers: of "explicit" the capacities, else the arguments that were given.
        condensed: n of "~n", None without it.
    """

    form: str
    numbers: tuple[float, ...]
    condensed: int | None


def read(text: str) -> PathText:
    """Split a path's text into its parts; whether the numbers fit is not checked.

    Raises:
        KeyError: an unknown form.
        ValueError: a part that is not a number, or too many numbers.
    """
    whole, _, points = text.strip().partition("~")
    condensed = int(points) if points else None
    form, _, rest = whole.partition(":")
    if form == "explicit":
        return PathText(form, tuple(float(r) for r in rest.split(",")), condensed)
    most = _MOST[form]
    fields = rest.split(":") if rest else []
    if len(fields) > most:
        raise ValueError(f"{len(fields)} numbers are too many")
    numbers = (*(int(field) for field in fields[:1]), *(float(field) for field in fields[1:]))
    return PathText(form, numbers, condensed)
