from __future__ import annotations

import pytest

from app.accounts import lately
from app.accounts.lately import LatelySeen
from app.accounts.principal import Principal
from app.kit.errors import Unauthenticated

HELD = Principal("key_1", "ten_1", frozenset({"chat"}), False)


class Book:
    """Keys, and how often somebody looked."""

    def __init__(self) -> None:
        self.valid = {"a": HELD, "b": HELD}
        self.looked: list[str] = []

    def look_up(self, secret: str) -> Principal:
        self.looked.append(secret)
        if secret not in self.valid:
            raise Unauthenticated("The API key is not valid.")
        return self.valid[secret]


@pytest.fixture
def book() -> Book:
    return Book()


class TestLatelySeen:
    def test_a_valid_key_is_looked_up_once_a_second(
        self, book: Book, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [100.0]
        monkeypatch.setattr("app.accounts.lately.time.monotonic", lambda: now[0])
        seen = LatelySeen(book.look_up)
        assert seen.known("a") is None
        assert seen.holder("a") == HELD
        now[0] += 0.9
        assert seen.known("a") == HELD
        assert seen.known("b") is None
        del book.valid["a"]
        now[0] += 0.1
        assert seen.known("a") is None
        with pytest.raises(Unauthenticated):
            seen.holder("a")

    def test_the_second_begins_before_the_look(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key that is revoked while the database is slow is not let in for longer."""
        now = [100.0]
        monkeypatch.setattr("app.accounts.lately.time.monotonic", lambda: now[0])

        def slow(secret: str) -> Principal:
            now[0] += 5
            return book.look_up(secret)

        seen = LatelySeen(slow)
        assert seen.holder("a") == HELD
        assert seen.known("a") is None

    def test_what_is_not_valid_is_looked_up_every_time(self, book: Book) -> None:
        seen = LatelySeen(book.look_up)
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                seen.holder("x")
            assert seen.known("x") is None
        assert book.looked == ["x"] * 3

    def test_bounded(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lately, "_MOST", 1)
        seen = LatelySeen(book.look_up)
        seen.holder("a")
        seen.holder("b")
        assert seen.known("a") is None
        assert seen.known("b") == HELD
