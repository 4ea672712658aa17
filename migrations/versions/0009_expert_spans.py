"""An expert's membership in generations as a span, in place of a row for every generation.

Revision ID: 0009
Revises: 0008
Create Date: 2026-11-29
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OLD, _NEW = "generation_experts_rows", "generation_experts"

_SPANS = """
WITH numbered AS (
    SELECT number, row_number() OVER (ORDER BY number) AS place FROM generations
), member AS (
    SELECT o.expert_id, o.version, n.place,
        n.place - row_number() OVER (PARTITION BY o.expert_id, o.version ORDER BY n.place) AS span
    FROM generation_experts_rows o JOIN numbered n ON n.number = o.generation
), spans AS (
    SELECT expert_id, version, min(place) AS first, max(place) AS last
    FROM member GROUP BY expert_id, version, span
)
INSERT INTO generation_experts (expert_id, version, from_generation, until_generation)
SELECT s.expert_id, s.version, begun.number, ended.number
FROM spans s
JOIN numbered begun ON begun.place = s.first
LEFT JOIN numbered ended ON ended.place = s.last + 1
"""

_ROWS = """
INSERT INTO generation_experts (generation, expert_id, version)
SELECT g.number, o.expert_id, o.version
FROM generation_experts_rows o JOIN generations g
    ON g.number >= o.from_generation AND (o.until_generation IS NULL OR g.number < o.until_generation)
"""


def upgrade() -> None:
    op.add_column(
        "generations", sa.Column("experts", sa.Integer(), server_default=sa.text("0"), nullable=False)
    )
    op.execute(
        "UPDATE generations g SET experts = "
        "(SELECT count(*) FROM generation_experts m WHERE m.generation = g.number)"
    )
    _put_aside()
    op.create_table(
        _NEW,
        sa.Column("expert_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_generation", sa.BigInteger(), nullable=False),
        sa.Column("until_generation", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["from_generation"],
            ["generations.number"],
            name=op.f("fk_generation_experts_from_generation_generations"),
        ),
        sa.ForeignKeyConstraint(
            ["until_generation"],
            ["generations.number"],
            name=op.f("fk_generation_experts_until_generation_generations"),
        ),
        sa.PrimaryKeyConstraint(
            "expert_id", "version", "from_generation", name=op.f("pk_generation_experts")
        ),
    )
    op.execute(_SPANS)
    op.create_index(
        "uq_generation_experts_current",
        _NEW,
        ["expert_id"],
        unique=True,
        postgresql_where=sa.text("until_generation IS NULL"),
    )
    op.drop_table(_OLD)


def downgrade() -> None:
    op.drop_index("uq_generation_experts_current", table_name=_NEW)
    _put_aside()
    op.create_table(
        _NEW,
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("expert_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.number"], name=op.f("fk_generation_experts_generation_generations")
        ),
        sa.PrimaryKeyConstraint("generation", "expert_id", "version", name=op.f("pk_generation_experts")),
    )
    op.execute(_ROWS)
    op.drop_table(_OLD)
    op.drop_column("generations", "experts")


def _put_aside() -> None:
    op.rename_table(_NEW, _OLD)
    op.execute(
        "ALTER TABLE generation_experts_rows "
        "RENAME CONSTRAINT pk_generation_experts TO pk_generation_experts_rows"
    )
