"""One row with everything that a status tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, event, update
from sqlalchemy.engine import Connection

from app.accounts.principal import Principal
from app.db.models import RemovalRequest, RequestEvent
from app.removal.records import Score
from app.removal.status import read_status
from app.removal.status_repository import StatusRepository, Usual
from tests.service import Service

START = datetime(2026, 1, 1, tzinfo=UTC)


def found(service: Service, request_id: str, tenant_id: str | None = None) -> Row[Any] | None:
    with service.sessions() as session:
        return StatusRepository(session.connection()).find(request_id, tenant_id)


def usual(service: Service, request_id: str) -> Usual:
    with service.sessions() as session:
        rows = StatusRepository(session.connection())
        row = rows.find(request_id, None)
        assert row is not None
        return rows.usual(row.lately)


@contextmanager
def counted(service: Service, words: str) -> Iterator[list[str]]:
    """Yield the statements with `words` that are sent meanwhile."""
    sent: list[str] = []

    def note(_: Connection, __: object, statement: str, *___: object) -> None:
        if words in statement:
            sent.append(statement)

    bind = service.sessions.kw["bind"]
    event.listen(bind, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(bind, "before_cursor_execute", note)


def took(service: Service, request_id: str, seconds: Sequence[float]) -> None:
    """Let the request's state changes have come after so many seconds each, the first at the beginning."""
    with service.sessions.begin() as session:
        rows = (
            session.query(RequestEvent).filter_by(request_id=request_id, kind="state").order_by("seq").all()
        )
        at = START
        for row, after in zip(rows, seconds, strict=True):
            at += timedelta(seconds=after)
            session.execute(update(RequestEvent).where(RequestEvent.seq == row.seq).values(created_at=at))
            if row.to_state == "queued":
                session.execute(
                    update(RemovalRequest).where(RemovalRequest.id == request_id).values(queued_at=at)
                )


class TestFind:
    def test_other_tenant(self, service: Service) -> None:
        request_id = service.file()["id"]
        assert found(service, request_id) is not None
        assert found(service, request_id, "ten_other") is None

    def test_one_statement(self, service: Service) -> None:
        request_id = service.file()["id"]
        anybody = Principal("key_test", "ten_test", frozenset({"operator"}), root=True)
        with service.sessions() as session, counted(service, "") as sent:
            assert read_status(session.connection(), anybody, request_id).id == request_id
        assert len(sent) == 1

    def test_scores_of_its_own_newest_attempt(self, service: Service) -> None:
        """Whatever other requests needed."""
        first, second = service.file("A B")["id"], service.file("C D")["id"]
        for request_id, attempts in ((first, (1, 2)), (second, (1, 2, 3))):
            lease = service.work_until(request_id, "train")
            with service.removal() as removal:
                for attempt in attempts:
                    scores = [Score("leak", attempt / 10, 5), Score("mu_rel", 1.0, 5)]
                    removal.save_scores(request_id, scores, attempt=attempt, token=lease.token)
        row = found(service, first)
        assert row is not None
        assert {(score["metric"], score["value"]) for score in row.scores} == {("leak", 0.2), ("mu_rel", 1.0)}

    def test_scores_before_anything_was_measured(self, service: Service) -> None:
        row = found(service, service.file()["id"])
        assert row is not None
        assert row.scores is None

    def test_short_enough_for_the_driver_to_keep(self, service: Service) -> None:
        """Psycopg reads a statement of more than 4096 characters anew every time."""
        request_id = service.file()["id"]
        sent: list[str] = []
        with service.sessions() as session:
            connection = session.connection()
            event.listen(connection, "before_cursor_execute", lambda *given: sent.append(given[2]))
            StatusRepository(connection).find(request_id, None)
            StatusRepository(connection).find(request_id, "ten_other")
        assert len(sent) == 2
        assert max(map(len, sent)) <= 4096


class TestUsual:
    def test_median(self, service: Service) -> None:
        """A stage counts from the last time that it was entered, and only where it has ended."""
        fast, slow = service.file("A B")["id"], service.file("C D")["id"]
        for request_id, training in ((fast, 10), (slow, 30)):
            service.activate(request_id)
            # received, in_review, approved, queued, preparing, training, ..., publishing, active
            took(service, request_id, [0, 0, 0, 0, 5, 2, training, 3, 4, 1])
        known = usual(service, service.file("E F")["id"])
        assert known.seconds == {
            "preparing": 2,
            "training": 20,
            "calibrating": 3,
            "verifying": 4,
            "publishing": 1,
        }
        assert known.whole == timedelta(seconds=5 + 2 + 20 + 3 + 4 + 1)

    def test_asked_once_until_another_is_active(self, service: Service) -> None:
        first, second = service.file("A B")["id"], service.file("C D")["id"]
        waiting = service.file("E F")["id"]
        assert usual(service, waiting) == Usual({}, None)
        service.activate(first)
        took(service, first, [0, 0, 0, 0, 5, 2, 10, 3, 4, 1])
        with counted(service, "percentile_cont") as sent:
            assert [usual(service, waiting).seconds["training"] for _ in range(3)] == [10] * 3
            assert len(sent) == 1
            service.post(f"/requests/{first}/revoke")
            assert usual(service, waiting).seconds["training"] == 10
            assert len(sent) == 1
        service.activate(second)
        took(service, second, [0, 0, 0, 0, 5, 2, 30, 3, 4, 1])
        assert usual(service, waiting).seconds["training"] == 20

    def test_nothing_without_work(self, service: Service) -> None:
        request_id = service.file("A B")["id"]
        service.activate(request_id)
        assert usual(service, request_id) == Usual({}, None)
