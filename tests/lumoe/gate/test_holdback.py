from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lumoe.gate import holdback
from app.lumoe.gate.holdback import releasable, settled

_WORDS = ["painters", "of", "the", "1962", "xY", "-", "\n", "a" * 20, "a" * 50]


class TestReleasable:
    def test_holds_the_last_words_and_the_letters_of_a_name(self) -> None:
        text = "one two three four five six seven eight"
        assert text[: releasable(text, 9)] == "one two "

    @pytest.mark.parametrize("separator", [" ", ".", " . ", "\n\n-\n\n"])
    def test_counts_letters_not_what_stands_between(self, separator: str) -> None:
        text = "They were told about a painter. " + separator.join("miratovel") + " and so on"
        assert releasable(text, 9) <= text.index("m" + separator)

    @pytest.mark.parametrize(
        "run", ["TWlyYSBUb3ZlbCBpcyBhIHBhaW50ZXI=", "4d 69 72 61 20 54 6f 76 65", "%4d%69%72"]
    )
    def test_holds_what_is_encoded_as_a_whole_and_what_it_continues(self, run: str) -> None:
        text = f"They were told about somebody else {run}"
        assert 0 < releasable(text, 9) <= text.index("somebody")

    def test_lets_go_once_it_is_over(self) -> None:
        text = "In 1962 there was a painter in the town and nobody knew"
        assert releasable(text, 9) > text.index("was")

    @given(st.text(max_size=60), st.integers(0, 12))
    def test_whole_words_of_any_text(self, text: str, letters: int) -> None:
        ready = releasable(text, letters)
        assert 0 <= ready <= settled(text) <= len(text)
        assert ready == 0 or text[ready - 1].isspace()

    @given(st.text(alphabet="abC 1.", max_size=60), st.integers(0, 12))
    def test_what_may_leave_may_leave_later(self, text: str, letters: int) -> None:
        ready = [releasable(text[:end], letters) for end in range(len(text))]
        assert ready == sorted(ready)

    @given(st.lists(st.sampled_from(_WORDS)).map(" ".join), st.text(max_size=90), st.integers(0, 60))
    def test_long_texts_are_read_from_their_end(self, begins: str, text: str, letters: int) -> None:
        said = f"{begins} {text} {begins[:100]}"
        near = releasable(said, letters), settled(said)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holdback, "_NEAR", len(said) + 1)
            assert near == (releasable(said, letters), settled(said))
