"""Figures measured again after each publish, and the encrypted examples behind a verification.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-25
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ID = sa.String(length=64, collation="C")


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        server_default=sa.text("clock_timestamp()"),
        nullable=False,
    )


def upgrade() -> None:
    op.create_table(
        "verification_examples",
        sa.Column("id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_verification_examples_request_id_removal_requests"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verification_examples")),
        sa.UniqueConstraint("request_id", "kind", name=op.f("uq_verification_examples_request_id_kind")),
    )
    op.create_table(
        "remeasurements",
        sa.Column("id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.number"], name=op.f("fk_remeasurements_generation_generations")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_remeasurements_request_id_removal_requests"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remeasurements")),
        sa.UniqueConstraint(
            "request_id",
            "generation",
            "metric",
            name=op.f("uq_remeasurements_request_id_generation_metric"),
        ),
    )
    op.create_index("ix_remeasurements_generation", "remeasurements", ["generation"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_remeasurements_generation", table_name="remeasurements")
    op.drop_table("remeasurements")
    op.drop_table("verification_examples")
