"""One row with everything that a status tells."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, event, update
from sqlalchemy.engine import Connection

from app.db.models import RemovalRequest, RequestEvent
from app.removal.records import Score
from app.removal.status_repository import StatusRepository
from tests.service import Service

START = datetime(2026, 1, 1, tzinfo=UTC)


def found(service: Service, request_id: str, tenant_id: str | None = None) -> Row[Any] | None:
    with service.sessions() as session:
        return StatusRepository(session.connection()).find(request_id, tenant_id)


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
        sent: list[str] = []

        def note(_: Connection, __: object, statement: str, *___: object) -> None:
            sent.append(statement)

        bind = service.sessions.kw["bind"]
        event.listen(bind, "before_cursor_execute", note)
        try:
            service.status(request_id)
        finally:
            event.remove(bind, "before_cursor_execute", note)
        assert len([statement for statement in sent if "removal_requests" in statement]) <= 1

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

    def test_usual_is_the_median(self, service: Service) -> None:
        """A stage counts from the last time that it was entered, and only where it has ended."""
        fast, slow = service.file("A B")["id"], service.file("C D")["id"]
        for request_id, training in ((fast, 10), (slow, 30)):
            service.activate(request_id)
            # received, in_review, approved, queued, preparing, training, ..., publishing, active
            took(service, request_id, [0, 0, 0, 0, 5, 2, training, 3, 4, 1])
        row = found(service, service.file("E F")["id"])
        assert row is not None
        assert row.usual == {
            "preparing": 2,
            "training": 20,
            "calibrating": 3,
            "verifying": 4,
            "publishing": 1,
        }
        assert row.usually_took == timedelta(seconds=5 + 2 + 20 + 3 + 4 + 1)

    def test_without_work_nothing_is_usual(self, service: Service) -> None:
        request_id = service.file("A B")["id"]
        service.activate(request_id)
        row = found(service, request_id)
        assert row is not None
        assert (row.usual, row.usually_took) == (None, None)
