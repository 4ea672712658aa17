"""The table of the policy's versions."""

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Document, Id, Words


class PolicyVersion(Base):
    """What operators set, whole, from this version on; a rule that is not in `rules` is the settings'.

    Rows are only ever added. Version 0, the settings alone, has none.
    """

    __tablename__ = "policy_versions"
    __table_args__ = (CheckConstraint("version > 0", name="version"),)

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[Id] = mapped_column(unique=True)
    rules: Mapped[Document]
    reason: Mapped[Words]
    changed_by: Mapped[Id] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
