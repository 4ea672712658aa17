"""Connections as the service configures them."""

from __future__ import annotations

from sqlalchemy import Engine

from app.db.session import GONE_SECONDS


def test_a_database_host_that_is_gone_is_noticed_within_half_a_minute(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        parameters = driver.info.get_parameters()
    probes = (parameters[f"keepalives_{name}"] for name in ("idle", "interval", "count"))
    idle, interval, count = (int(value) for value in probes)
    assert idle + interval * count <= GONE_SECONDS
    assert int(parameters["tcp_user_timeout"]) == GONE_SECONDS * 1000, "for what was sent and never answered"
