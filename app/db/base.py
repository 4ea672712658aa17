"""Declarative base, naming convention and column types shared by all tables."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar

from sqlalchemy import BigInteger, DateTime, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from app.kit.canonical import JsonValue

if TYPE_CHECKING:
    JsonObject = dict[str, JsonValue]
else:  # the mapper evaluates annotations, and cannot follow the recursive alias
    JsonObject = dict

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Id = Annotated[str, mapped_column(String(64, collation="C"))]
"""A prefixed UUIDv7; the C collation makes the order of ids the order of bytes, hence of time."""

Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Long = Annotated[int, mapped_column(BigInteger)]
Sha256 = Annotated[str, mapped_column(String(64, collation="C"))]
Sealed = Annotated[bytes, mapped_column(LargeBinary)]
Words = Annotated[str, mapped_column(Text)]
Document = Annotated[JsonObject, mapped_column(JSONB)]


class Base(DeclarativeBase):
    """Base of all tables. There are no relationships: repositories say what they read."""

    if TYPE_CHECKING:
        __table__: ClassVar[Table]

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
