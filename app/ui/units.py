"""Temperatures and lengths in the units that a person reads.

In: a text of the knowledge base, which gives degrees Celsius (often without saying so) and metric lengths. Out: the
same text in the chosen units, every temperature with its unit. Ages, pulses, blood pressures and doses stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable

METRIC, US = "°C, cm", "°F, inches"
UNITS = (METRIC, US)

_NUMBER = r"\d+(?:\.\d+)?"
_RANGE = rf"(?P<first>{_NUMBER})(?:\s*(?P<to>to|-|–)\s*(?P<last>{_NUMBER}))?"
_SAID = re.compile(rf"{_RANGE}\s*°?\s?C\b(?:\s*\(\s*{_NUMBER}\s*°?\s?F\s*\))?")
_UNSAID = re.compile(
    rf"(?P<before>\b(?:fever|temperature)(?:\s+(?:is|of|over|above|below|under|stays|or|more|than))*\s+){_RANGE}(?![\d./]*\d)(?!\s*°|\s*C\b|\s*F\b|\s+(?:days?|hours?|weeks?))"
)
_LENGTH = re.compile(rf"{_RANGE}\s*(?P<unit>mm|cm|metres?|meters?|m)\b")
_BODY = (30.0, 45.0)
"""Degrees Celsius between which a number beside "fever" or "temperature" is one of a body."""
_FEET, _INCH = 0.3048, 2.54


def fahrenheit(celsius: float) -> str:
    """Degrees Fahrenheit, with half degrees of a thermometer where they are given."""
    value = celsius * 9 / 5 + 32
    return f"{value:.0f}" if abs(value - round(value)) < 0.15 else f"{value:.1f}"


def inches(centimetres: float) -> str:
    """Inches, to a hundredth below one, to a tenth below ten."""
    value = centimetres / _INCH
    return (
        f"{value:.2f}" if value < 1 else f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:.0f}"
    )


def feet(metres: float) -> str:
    """Feet, to the next hundred where there are many."""
    value = metres / _FEET
    return f"{round(value, -2):.0f}" if value >= 1000 else f"{value:.0f}"


def _each(match: re.Match[str], write: Callable[[float], str], unit: str) -> str:
    """One number or a range of two, written anew, with the unit behind."""
    first, to, last = match["first"], match["to"], match["last"]
    ends = write(float(first)) if last is None else f"{write(float(first))} {to} {write(float(last))}"
    return f"{ends} {unit}"


def _length(match: re.Match[str]) -> str:
    unit = match["unit"]
    if unit.startswith("m") and unit != "mm":
        return _each(match, feet, "ft")
    return _each(match, lambda value: inches(value / 10 if unit == "mm" else value), "in")


def in_units(text: str, units: str) -> str:
    """A text in ``METRIC`` or ``US`` units."""

    def degrees(match: re.Match[str]) -> str:
        if units == US:
            return _each(match, fahrenheit, "°F")
        return _each(match, lambda value: f"{value:g}", "°C")

    def unsaid(match: re.Match[str]) -> str:
        inside = all(_BODY[0] <= float(match[end]) <= _BODY[1] for end in ("first", "last") if match[end])
        return match["before"] + degrees(match) if inside else match[0]

    text = _UNSAID.sub(unsaid, _SAID.sub(degrees, text))
    return _LENGTH.sub(_length, text) if units == US else text
