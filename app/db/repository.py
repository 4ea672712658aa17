"""Typed base of all repositories: the only place where SQL is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Select, bindparam, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session, SessionTransaction

from app.db.base import Base

M = TypeVar("M", bound=Base)
T = TypeVar("T")

ADVISORY_NAMESPACE = 0x4C45  # "LE"
LEDGER_LOCK = 1
_HELD = "lethe.ledger.held"
_LOCK_LEDGER = select(func.pg_advisory_xact_lock(ADVISORY_NAMESPACE, LEDGER_LOCK))
_LOCK_NAMED = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0)))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows in order, and whether there are more."""

    items: Sequence[T]
    more: bool


def values_of(row: Base) -> dict[str, Any]:
    """Return what has been set of a row, by column, for a statement that writes it without the session."""
    return {name: value for name, value in vars(row).items() if not name.startswith("_sa_")}


class Repository(Generic[M]):
    """Reads and writes one table within the caller's transaction."""

    model: ClassVar[type[Base]]

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, row: M) -> M:
        """Insert `row` now, so that constraint violations show here."""
        self.session.add(row)
        self.session.flush()
        return row

    def insert(self, row: M) -> M:
        """Insert `row` as `add` does, for a row that this transaction does not change again.

        It is no object of the session's, and what the database sets by itself is not read back.
        """
        self.session.execute(insert(self.model.__table__), values_of(row))
        return row

    def insert_all(self, rows: Sequence[M]) -> None:
        """Insert several as `insert` does, together; all of them have the same columns set."""
        if rows:
            self.session.execute(insert(self.model.__table__), [values_of(row) for row in rows])

    def all(self, statement: Select[M]) -> Sequence[M]:
        """Return every row of `statement`."""
        return self.session.scalars(statement).all()

    def first(self, statement: Select[M]) -> M | None:
        """Return the first row of `statement`, or None."""
        return self.session.scalars(statement.limit(1)).first()

    def page(
        self,
        statement: Select[M],
        key: InstrumentedAttribute[str] | InstrumentedAttribute[int],
        *,
        after: str | int | None,
        limit: int,
        descending: bool = True,
    ) -> Page[M]:
        """Return up to `limit` rows in the order of `key`, beyond the row whose key is `after`."""
        if after is not None:
            statement = statement.where(key < after if descending else key > after)
        rows = self.all(statement.order_by(key.desc() if descending else key.asc()).limit(limit + 1))
        return Page(rows[:limit], len(rows) > limit)


def lock_ledger(session: Session) -> None:
    """Serialise writers of the audit chain and of the registry until the end of this transaction.

    One lock for both: every registry change is audited, so two locks could only ever be taken in two orders.
    Asking again within the transaction asks the database nothing. (There are no savepoints: rolling back to
    one would give the lock up.)
    """
    held: SessionTransaction | None = session.info.get(_HELD)
    if held is None or held is not session.get_transaction():
        session.execute(_LOCK_LEDGER)
        session.info[_HELD] = session.get_transaction()


def lock_named(session: Session, name: str) -> None:
    """Serialise transactions that name the same thing (a 64-bit hash of `name`)."""
    session.execute(_LOCK_NAMED, {"name": name})


def try_lock_named(session: Session, name: str) -> bool:
    """Take the lock of `lock_named` if it is free, and tell whether it was."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))))
