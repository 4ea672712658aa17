"""Engines and sessions. Whoever opens a session commits it; services never do."""

import select

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.settings import Settings

SessionFactory = sessionmaker[Session]


CLIENT_ENCODING = {"client_encoding": "utf8"}
"""For every connection: a server set up without a locale (SQL_ASCII) would else hand out bytes for text."""


GONE_SECONDS = 30
"""A database host that does not answer for so long is gone; the kernel would wait a quarter of an hour."""


def create_engine_from(settings: Settings, *, connections: int = 20) -> Engine:
    """Return an engine for `settings.database_url`: UTC sessions, dead connections noticed and replaced.

    Args:
        settings: where the database is.
        connections: how many may be open at once. None is closed for want of work: under load, others would
            be made anew all the time.
    """
    engine = create_engine(
        settings.database_url,
        pool_size=connections,
        max_overflow=0,
        connect_args={
            **CLIENT_ENCODING,
            "options": "-c timezone=UTC -c lock_timeout=30s -c idle_in_transaction_session_timeout=120s",
            "connect_timeout": 10,
            "keepalives_idle": GONE_SECONDS // 2,
            "keepalives_interval": GONE_SECONDS // 6,
            "keepalives_count": 3,
            "tcp_user_timeout": GONE_SECONDS * 1000,
        },
    )
    event.listen(engine, "checkout", replace_if_ended)
    return engine


def replace_if_ended(connection: DBAPIConnection, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
    """Have the pool connect anew where the database has ended a connection that nobody used.

    A server that restarts, fails over or ends a session says so and closes; the kernel knows, so that nothing
    needs to be asked of the database every time. While nobody uses a connection it has nothing else to read.
    """
    idle = select.poll()
    idle.register(connection.fileno(), select.POLLIN)
    if idle.poll(0):
        raise InvalidatePoolError("the database ended the connection")


def reading_engine(engine: Engine) -> Engine:
    """Return one without transactions, on the same connections: every statement is one.

    For what reads, or changes a single row: two trips to the database less. At the isolation that
    transactions have (read committed) reading twice shows what has changed in between in either.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def session_factory(engine: Engine) -> SessionFactory:
    """Return a factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
