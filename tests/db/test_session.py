"""Connections as the service configures them."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, event, text

from app.db.session import GONE_SECONDS, replace_if_ended

BACKEND = text("SELECT pg_backend_pid()")


def test_a_database_host_that_is_gone_is_noticed_within_half_a_minute(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        parameters = driver.info.get_parameters()
    probes = (parameters[f"keepalives_{name}"] for name in ("idle", "interval", "count"))
    idle, interval, count = (int(value) for value in probes)
    assert idle + interval * count <= GONE_SECONDS
    assert int(parameters["tcp_user_timeout"]) == GONE_SECONDS * 1000, "for what was sent and never answered"


class TestReplaceIfEnded:
    def test_a_session_that_the_database_ended(self, engine: Engine) -> None:
        mine = create_engine(engine.url, pool_size=2, max_overflow=0)
        event.listen(mine, "checkout", replace_if_ended)
        try:
            with mine.connect() as first, mine.connect() as second:
                ended = {connection.scalar(BACKEND) for connection in (first, second)}
            with engine.connect() as other:
                for pid in ended:
                    other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            with mine.connect() as first, mine.connect() as second:
                assert ended.isdisjoint({connection.scalar(BACKEND) for connection in (first, second)})
        finally:
            mine.dispose()

    def test_a_live_one_is_kept_and_asked_nothing(self, engine: Engine) -> None:
        sent: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda _, __, statement, *___: sent.append(statement))
        with engine.connect() as connection:
            backend = connection.scalar(BACKEND)
        with engine.connect() as connection:
            assert connection.scalar(BACKEND) == backend
        assert sent == [str(BACKEND)] * 2


def test_connections_are_kept_for_the_next_who_asks(engine: Engine) -> None:
    """All that were open at once: a pool that closed some would connect anew for every wave of requests."""
    open_at_once = [engine.connect() for _ in range(10)]
    backends = {connection.scalar(BACKEND) for connection in open_at_once}
    for connection in open_at_once:
        connection.close()
    again = [engine.connect() for _ in range(10)]
    assert {connection.scalar(BACKEND) for connection in again} == backends
    for connection in again:
        connection.close()
