"""Interim protection of approved subjects; requests that are under way get theirs.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-24
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_UNDER_WAY = sa.text("""
    SELECT r.id FROM removal_requests r
    WHERE r.linked_to_id IS NULL
      AND r.policy IS NOT NULL
      AND r.state IN ('approved', 'queued', 'preparing', 'training', 'calibrating', 'verifying', 'publishing',
                      'needs_evidence', 'needs_attention', 'failed')
      AND NOT EXISTS (
        SELECT 1 FROM experts e JOIN generation_experts g ON g.expert_id = e.id AND g.version = e.version
        WHERE e.request_id = r.id AND g.generation = (SELECT max(number) FROM generations)
      )
""")


def upgrade() -> None:
    op.create_table(
        "interim_protections",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("from_generation", sa.BigInteger(), nullable=False),
        sa.Column("until_generation", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(length=32), nullable=True),
        sa.Column("protected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["from_generation"],
            ["generations.number"],
            name=op.f("fk_interim_protections_from_generation_generations"),
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_interim_protections_request_id_removal_requests"),
        ),
        sa.ForeignKeyConstraint(
            ["until_generation"],
            ["generations.number"],
            name=op.f("fk_interim_protections_until_generation_generations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interim_protections")),
    )
    op.create_index(
        op.f("ix_interim_protections_request_id"), "interim_protections", ["request_id"], unique=False
    )
    op.create_index(
        "ix_interim_protections_unconfirmed",
        "interim_protections",
        ["id"],
        unique=False,
        postgresql_where=sa.text("protected_at IS NULL"),
    )
    op.create_index(
        "uq_interim_protections_current",
        "interim_protections",
        ["request_id"],
        unique=True,
        postgresql_where=sa.text("until_generation IS NULL"),
    )
    if not op.get_context().as_sql:  # a script cannot look; it serves for empty databases
        _protect_what_is_under_way(op.get_bind())


def _protect_what_is_under_way(connection: sa.Connection) -> None:
    """Write one generation with the newest one's experts in which every approved request is protected."""
    requests = connection.execute(_UNDER_WAY).scalars().all()
    if not requests:
        return
    newest = connection.execute(sa.text("SELECT coalesce(max(number), 0) FROM generations")).scalar_one()
    connection.execute(
        sa.text("INSERT INTO generations (number, cause) VALUES (:number, 'migrate')"), {"number": newest + 1}
    )
    connection.execute(
        sa.text(
            "INSERT INTO generation_experts (generation, expert_id, version) "
            "SELECT :number, expert_id, version FROM generation_experts WHERE generation = :newest"
        ),
        {"number": newest + 1, "newest": newest},
    )
    connection.execute(
        sa.text(
            "INSERT INTO interim_protections (id, request_id, from_generation) "
            "VALUES ('prt_' || replace(gen_random_uuid()::text, '-', ''), :request, :number)"
        ),
        [{"request": request, "number": newest + 1} for request in requests],
    )


def downgrade() -> None:
    op.drop_index(
        "uq_interim_protections_current",
        table_name="interim_protections",
        postgresql_where=sa.text("until_generation IS NULL"),
    )
    op.drop_index(
        "ix_interim_protections_unconfirmed",
        table_name="interim_protections",
        postgresql_where=sa.text("protected_at IS NULL"),
    )
    op.drop_index(op.f("ix_interim_protections_request_id"), table_name="interim_protections")
    op.drop_table("interim_protections")
