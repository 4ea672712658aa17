from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.stops import StopFilter

STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4)


def whole(text: str, stops: list[str]) -> str:
    """What should be left: everything before the stop string that is complete first."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@given(pieces=st.lists(st.text("abc", max_size=5), max_size=6), stops=STOPS)
def test_is_the_same_however_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    stream = StopFilter(stops)
    sent = ""
    for piece in pieces:
        sent += stream.feed(piece)
        assert not any(stop in sent for stop in stops)
    sent += stream.flush()
    assert sent == stream.text == whole("".join(pieces), stops)
    assert stream.hit == any(stop in "".join(pieces) for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "sent"),
    [
        (["one ", "two"], [], ["one ", "two", ""]),
        (["one E", "N", "D two"], ["END"], ["one ", "", "", ""]),
        (["one E", "N", "T"], ["END"], ["one ", "", "ENT", ""]),
        (["one EN"], ["END"], ["one ", "EN"]),
        (["aab"], ["ab"], ["a", ""]),
        (["END"], ["END"], ["", ""]),
    ],
)
def test_holds_back_what_may_be_a_beginning(pieces: list[str], stops: list[str], sent: list[str]) -> None:
    stream = StopFilter(stops)
    assert [*(stream.feed(piece) for piece in pieces), stream.flush()] == sent


def test_nothing_leaves_afterwards() -> None:
    stream = StopFilter(["b"])
    assert (stream.feed("abc"), stream.hit) == ("a", True)
    assert stream.feed("abc") == stream.flush() == ""
