"""The log says which endpoint answered what, and nothing that a client wrote."""

import pytest
import structlog

from tests.service import Service

ID = "req_" + "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "status"),
    [
        ("GET", "/requests?cursor=ElodieBrandt", "/requests", 422),
        ("GET", f"/requests/{ID}/status?note=ElodieBrandt", f"/requests/{ID}/status", 404),
        ("GET", "/requests/ElodieBrandt", "/requests/{request_id}", 404),
        ("GET", "/audit/events/7/proof", "/audit/events/7/proof", 403),
        ("GET", "/ElodieBrandt", "unknown", 404),
    ],
)
def test_one_line(shared: Service, method: str, path: str, endpoint: str, status: int) -> None:
    with structlog.testing.capture_logs() as lines:
        assert shared.call(method, path).status_code == status
    answered = [line for line in lines if line["event"] == "answered"]
    assert [(line["method"], line["endpoint"], line["status"]) for line in answered] == [
        (method, endpoint, status)
    ]
    assert "ElodieBrandt" not in str(lines)


def test_our_own_mistakes(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("app.removal.endpoints.ReadingService", broken)
    with structlog.testing.capture_logs() as lines:
        assert shared.get("/requests/ElodieBrandt").status_code == 500
    assert {line["event"] for line in lines} >= {"answered", "unexpected error"}
    assert "ElodieBrandt" not in str([{**line, "exc_info": None} for line in lines])
