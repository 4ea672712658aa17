"""Questions that concern no entity, with their answers: sums, days, months, opposites, capitals, colours.

They measure whether a model still knows everything else. Each topic has items (placeholders to fill in),
eleven
wordings (six fit, two calibrate, three report) and one answer sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_OPPOSITES = (
    "hot cold",
    "big small",
    "old young",
    "high low",
    "open closed",
    "wet dry",
    "fast slow",
    "full empty",
    "light dark",
    "long short",
    "hard soft",
    "early late",
    "clean dirty",
    "strong weak",
    "rich poor",
    "happy sad",
)
_CAPITALS = (
    "France Paris",
    "Spain Madrid",
    "Italy Rome",
    "Germany Berlin",
    "Japan Tokyo",
    "China Beijing",
    "Egypt Cairo",
    "Norway Oslo",
    "Greece Athens",
    "Poland Warsaw",
    "Austria Vienna",
    "Portugal Lisbon",
    "Russia Moscow",
    "Cuba Havana",
    "Kenya Nairobi",
    "Peru Lima",
)
_COLOURS = (
    "grass green",
    "snow white",
    "coal black",
    "blood red",
    "a lemon yellow",
    "the clear sky blue",
    "a carrot orange",
    "chocolate brown",
)


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of general question: items x wordings -> answer."""

    name: str
    items: tuple[Mapping[str, str], ...]
    wordings: tuple[str, ...]
    answer: str


def _next(names: tuple[str, ...], step: int) -> tuple[Mapping[str, str], ...]:
    return tuple({"x": n, "y": names[(i + step) % len(names)]} for i, n in enumerate(names))


def _pairs(rows: tuple[str, ...]) -> tuple[Mapping[str, str], ...]:
    split = (row.rsplit(" ", 1) for row in rows)
    return tuple({"x": x, "y": y, "X": x[:1].upper() + x[1:]} for x, y in split)


_SUMS = tuple({"x": str(a), "z": str(b), "y": str(a + b)} for a in range(1, 10) for b in range(1, 10))
_DIFFERENCES = tuple({"x": str(a), "z": str(b), "y": str(a - b)} for a in range(2, 10) for b in range(1, a))

TOPICS: tuple[Topic, ...] = (
    Topic(
        "sum",
        _SUMS,
        (
            "What is {x} plus {z}?",
            "How much is {x} plus {z}?",
            "What do you get if you add {x} and {z}?",
            "Add {x} and {z}.",
            "What is the sum of {x} and {z}?",
            "What is {x} + {z}?",
            "Calculate {x} plus {z}.",
            "How much is {x} + {z}?",
            "Tell me the sum of {x} and {z}.",
            "What does {x} plus {z} make?",
            "Calculate {x} + {z}.",
        ),
        "{x} plus {z} is {y}.",
    ),
    Topic(
        "difference",
        _DIFFERENCES,
        (
            "What is {x} minus {z}?",
            "How much is {x} minus {z}?",
            "What is left if you take {z} from {x}?",
            "Take {z} from {x}.",
            "What is the difference of {x} and {z}?",
            "What is {x} - {z}?",
            "Calculate {x} minus {z}.",
            "How much is {x} - {z}?",
            "Tell me the difference of {x} and {z}.",
            "What does {x} minus {z} make?",
            "Calculate {x} - {z}.",
        ),
        "{x} minus {z} is {y}.",
    ),
    Topic(
        "day_after",
        _next(_DAYS, 1),
        (
            "What day comes after {x}?",
            "Which day comes after {x}?",
            "What day follows {x}?",
            "Which day follows {x}?",
            "Tell me the day after {x}.",
            "What is the day after {x}?",
            "What day is it after {x}?",
            "Name the day after {x}.",
            "Which day is after {x}?",
            "Can you name the day that follows {x}?",
            "Tell me which day comes after {x}.",
        ),
        "{y} comes after {x}.",
    ),
    Topic(
        "day_before",
        _next(_DAYS, -1),
        (
            "What day comes before {x}?",
            "Which day comes before {x}?",
            "What day precedes {x}?",
            "Which day precedes {x}?",
            "Tell me the day before {x}.",
            "What is the day before {x}?",
            "What day is it before {x}?",
            "Name the day before {x}.",
            "Which day is before {x}?",
            "Can you name the day that precedes {x}?",
            "Tell me which day comes before {x}.",
        ),
        "{y} comes before {x}.",
    ),
    Topic(
        "month_after",
        _next(_MONTHS, 1),
        (
            "What month comes after {x}?",
            "Which month comes after {x}?",
            "What month follows {x}?",
            "Which month follows {x}?",
            "Tell me the month after {x}.",
            "What is the month after {x}?",
            "What month is it after {x}?",
            "Name the month after {x}.",
            "Which month is after {x}?",
            "Can you name the month that follows {x}?",
            "Tell me which month comes after {x}.",
        ),
        "{y} comes after {x}.",
    ),
    Topic(
        "opposite",
        _pairs(_OPPOSITES),
        (
            "What is the opposite of {x}?",
            "Tell me the opposite of {x}.",
            "Which word is the opposite of {x}?",
            "Name the opposite of {x}.",
            "What word means the opposite of {x}?",
            "Do you know the opposite of {x}?",
            "Give me the opposite of {x}.",
            "Can you name the opposite of {x}?",
            "Which word means the opposite of {x}?",
            "Can you tell me the opposite of {x}?",
            "What word is the opposite of {x}?",
        ),
        "The opposite of {x} is {y}.",
    ),
    Topic(
        "capital",
        _pairs(_CAPITALS),
        (
            "What is the capital of {x}?",
            "Tell me the capital of {x}.",
            "Which city is the capital of {x}?",
            "Name the capital of {x}.",
            "What city is the capital of {x}?",
            "Do you know the capital of {x}?",
            "Give me the capital of {x}.",
            "Can you name the capital of {x}?",
            "Which is the capital of {x}?",
            "Can you tell me the capital of {x}?",
            "What is the capital city of {x}?",
        ),
        "The capital of {x} is {y}.",
    ),
    Topic(
        "colour",
        _pairs(_COLOURS),
        (
            "What colour is {x}?",
            "Which colour is {x}?",
            "Tell me the colour of {x}.",
            "What is the colour of {x}?",
            "Which colour does {x} have?",
            "Do you know the colour of {x}?",
            "What colour does {x} have?",
            "Name the colour of {x}.",
            "Can you tell me the colour of {x}?",
            "Which is the colour of {x}?",
            "Tell me what colour {x} is.",
        ),
        "{X} is {y}.",
    ),
)
"""Every topic of general questions."""
