"""Names, ids, canonical JSON, errors, logs."""

import io
import json
import time
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kit.canonical import canonical_json, json_sha256
from app.kit.clock import rfc3339, utcnow
from app.kit.errors import NotFound, Unauthenticated
from app.kit.ids import is_id, new_id
from app.kit.logging import configure_logging, get_logger
from app.kit.names import canonical_name, control_character, has_letters


class TestNames:
    @pytest.mark.parametrize(
        ("typed", "canonical"),
        [
            ("  ÉLODIE   O’Hara ", "elodie o hara"),
            ("Elodie-O'Hara", "elodie o hara"),
            ("Straße", "strasse"),
            ("Ｅｌｏｄｉｅ", "elodie"),
            ("山田太郎", "山田太郎"),
            ("🦊", ""),
        ],
    )
    def test_canonical_name(self, typed: str, canonical: str) -> None:
        assert canonical_name(typed) == canonical

    @given(st.text(max_size=50))
    def test_canonical_twice_is_canonical(self, text: str) -> None:
        assert canonical_name(canonical_name(text)) == canonical_name(text)

    def test_has_letters(self) -> None:
        assert has_letters("4")
        assert has_letters("نور")
        assert not has_letters("🦊 !")

    def test_control_character(self) -> None:
        assert control_character("a\tb\nc") is None
        assert control_character("a\0") == "U+0000"
        assert control_character("a\x1b") == "U+001B"


class TestIds:
    def test_sort_by_time(self) -> None:
        first = new_id("req")
        time.sleep(0.002)
        assert first < new_id("req")

    def test_is_id(self) -> None:
        assert is_id(new_id("req"), "req")
        for bad in ("", "req_", new_id("key"), new_id("req") + "\n", "req_" + "G" * 32):
            assert not is_id(bad, "req")


class TestCanonicalJson:
    def test_order_and_numbers(self) -> None:
        assert canonical_json({"b": 1.0, "a": [True, None, "é"], "c": 1e21}) == (
            '{"a":[true,null,"é"],"b":1,"c":1e+21}'.encode()
        )
        assert json_sha256({"a": 1, "b": 2}) == json_sha256({"b": 2, "a": 1.0})

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1])
    def test_no_canonical_form(self, value: float) -> None:
        with pytest.raises(ValueError, match="canonical"):
            canonical_json(value)


def test_rfc3339_is_utc_with_fixed_precision() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-02T01:04:05.000000Z"
    assert utcnow().tzinfo is UTC


def test_errors_make_problem_documents() -> None:
    error = NotFound("No such thing.", extra={"id": "x"})
    assert error.problem() == {
        "type": "urn:lethe:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "No such thing.",
        "hint": NotFound.HINT,
        "id": "x",
    }
    assert "WWW-Authenticate" in Unauthenticated().headers


def test_logs_name_no_people_and_no_secrets() -> None:
    sink = io.StringIO()
    with redirect_stderr(sink):
        configure_logging()
        get_logger("test").info(
            "filed",
            request="req_1",
            name="Elodie",
            key="sent lethe_" + "x" * 43,
            database="postgresql://lethe:hunter2@db/lethe",
        )
    line = json.loads(sink.getvalue())
    assert (line["request"], line["room"]) == ("req_1", "test")
    for hidden in ("Elodie", "xxx", "hunter2"):
        assert hidden not in sink.getvalue()
