"""Data keys: what encrypts the files of a request, encrypted under the evidence key.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-28
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", sa.String(length=16, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_data_keys_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_keys")),
        sa.UniqueConstraint("request_id", name=op.f("uq_data_keys_request_id")),
    )


def downgrade() -> None:
    op.drop_table("data_keys")
