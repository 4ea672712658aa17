"""An index that finds every request for a subject, whatever has become of it.

Revision ID: 0010
Revises: 0009
Create Date: 2026-11-29
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_INDEX = "ix_removal_requests_tenant_id_subject_token"


def upgrade() -> None:
    op.create_index(_INDEX, "removal_requests", ["tenant_id", "subject_token"])


def downgrade() -> None:
    op.drop_index(_INDEX, table_name="removal_requests")
