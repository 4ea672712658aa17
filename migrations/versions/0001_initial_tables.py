"""Initial tables.

Revision ID: 0001
Revises:
Create Date: 2026-11-23
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=64, collation="C"), nullable=True),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("subject_id", sa.String(length=64, collation="C"), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prev_hash", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("hash", sa.String(length=64, collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_events")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_events_hash")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_events_id")),
        sa.UniqueConstraint("prev_hash", name=op.f("uq_audit_events_prev_hash")),
    )
    op.create_index("ix_audit_events_subject_id_seq", "audit_events", ["subject_id", "seq"], unique=False)
    op.create_index(op.f("ix_audit_events_tenant_id"), "audit_events", ["tenant_id"], unique=False)
    op.create_table(
        "audit_salts",
        sa.Column("subject_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("subject_id", name=op.f("pk_audit_salts")),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("model_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default="-1", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_generation", sa.BigInteger(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("key_hash", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.String(length=16)), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_tenant_id"), "api_keys", ["tenant_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("client", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["client"], ["api_keys.id"], name=op.f("fk_idempotency_keys_client_api_keys")
        ),
        sa.PrimaryKeyConstraint("client", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "removal_requests",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("tenant_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("created_by", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=True),
        sa.Column("percent", sa.Integer(), server_default="0", nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("klass", sa.String(length=32), nullable=False),
        sa.Column("legal_ground", sa.String(length=64), nullable=False),
        sa.Column("subject_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("subject_token", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("linked_to_id", sa.String(length=64, collation="C"), nullable=True),
        sa.Column("base_knows_subject", sa.Boolean(), nullable=True),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("reason_code", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expected_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("evidence_purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('received', 'in_review', 'approved', 'queued', 'preparing', 'training', "
            "'calibrating', 'verifying', 'publishing', 'active', 'rejected', 'cancelled', 'failed', "
            "'revoked', 'needs_evidence', 'needs_attention')",
            name=op.f("ck_removal_requests_state"),
        ),
        sa.CheckConstraint("percent >= 0 AND percent <= 100", name=op.f("ck_removal_requests_percent")),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_removal_requests_created_by_api_keys")
        ),
        sa.ForeignKeyConstraint(
            ["linked_to_id"],
            ["removal_requests.id"],
            name=op.f("fk_removal_requests_linked_to_id_removal_requests"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_removal_requests_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removal_requests")),
    )
    op.create_index(
        op.f("ix_removal_requests_linked_to_id"), "removal_requests", ["linked_to_id"], unique=False
    )
    op.create_index(op.f("ix_removal_requests_state"), "removal_requests", ["state"], unique=False)
    op.create_index("ix_removal_requests_tenant_id_id", "removal_requests", ["tenant_id", "id"], unique=False)
    op.create_index(
        "uq_removal_requests_open_subject",
        "removal_requests",
        ["tenant_id", "subject_token"],
        unique=True,
        postgresql_where=sa.text(
            "linked_to_id IS NULL AND state NOT IN ('rejected', 'cancelled', 'failed', 'revoked')"
        ),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("content_sha256", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_evidence_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
    )
    op.create_index(op.f("ix_evidence_request_id"), "evidence", ["request_id"], unique=False)
    op.create_table(
        "experts",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("model_fingerprint", sa.String(length=64), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_experts_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("pk_experts")),
    )
    op.create_index(op.f("ix_experts_request_id"), "experts", ["request_id"], unique=False)
    op.create_table(
        "generations",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cause", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=True),
        sa.Column("restored_from", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_generations_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_generations")),
    )
    op.create_table(
        "leases",
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_leases_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["request_id"], ["removal_requests.id"], name=op.f("fk_outbox_request_id_removal_requests")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_request_id_published_at", "outbox", ["request_id", "published_at"], unique=False
    )
    op.create_index(
        "ix_outbox_unpublished",
        "outbox",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "request_events",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=True),
        sa.Column("from_state", sa.String(length=32), nullable=True),
        sa.Column("to_state", sa.String(length=32), nullable=True),
        sa.Column("stage", sa.String(length=32), nullable=True),
        sa.Column("percent", sa.Integer(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_request_events_request_id_removal_requests"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_request_events")),
        sa.UniqueConstraint("id", name=op.f("uq_request_events_id")),
    )
    op.create_index("ix_request_events_request_id_seq", "request_events", ["request_id", "seq"], unique=False)
    op.create_table(
        "stage_checkpoints",
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("artifact", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_stage_checkpoints_request_id_removal_requests"),
        ),
        sa.PrimaryKeyConstraint("request_id", "stage", name=op.f("pk_stage_checkpoints")),
    )
    op.create_table(
        "verification_scores",
        sa.Column("id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("request_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("threshold", sa.Double(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["removal_requests.id"],
            name=op.f("fk_verification_scores_request_id_removal_requests"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verification_scores")),
        sa.UniqueConstraint(
            "request_id", "attempt", "metric", name=op.f("uq_verification_scores_request_id_attempt_metric")
        ),
    )
    op.create_table(
        "acknowledgements",
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("replica_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column(
            "acknowledged_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.number"], name=op.f("fk_acknowledgements_generation_generations")
        ),
        sa.ForeignKeyConstraint(
            ["replica_id"], ["replicas.id"], name=op.f("fk_acknowledgements_replica_id_replicas")
        ),
        sa.PrimaryKeyConstraint("generation", "replica_id", name=op.f("pk_acknowledgements")),
    )
    op.create_table(
        "generation_experts",
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("expert_id", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["generation"], ["generations.number"], name=op.f("fk_generation_experts_generation_generations")
        ),
        sa.PrimaryKeyConstraint("generation", "expert_id", "version", name=op.f("pk_generation_experts")),
    )


def downgrade() -> None:
    op.drop_table("generation_experts")
    op.drop_table("acknowledgements")
    op.drop_table("verification_scores")
    op.drop_table("stage_checkpoints")
    op.drop_index("ix_request_events_request_id_seq", table_name="request_events")
    op.drop_table("request_events")
    op.drop_index(
        "ix_outbox_unpublished", table_name="outbox", postgresql_where=sa.text("published_at IS NULL")
    )
    op.drop_index("ix_outbox_request_id_published_at", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("leases")
    op.drop_table("generations")
    op.drop_index(op.f("ix_experts_request_id"), table_name="experts")
    op.drop_table("experts")
    op.drop_index(op.f("ix_evidence_request_id"), table_name="evidence")
    op.drop_table("evidence")
    op.drop_index(
        "uq_removal_requests_open_subject",
        table_name="removal_requests",
        postgresql_where=sa.text(
            "linked_to_id IS NULL AND state NOT IN ('rejected', 'cancelled', 'failed', 'revoked')"
        ),
    )
    op.drop_index("ix_removal_requests_tenant_id_id", table_name="removal_requests")
    op.drop_index(op.f("ix_removal_requests_state"), table_name="removal_requests")
    op.drop_index(op.f("ix_removal_requests_linked_to_id"), table_name="removal_requests")
    op.drop_table("removal_requests")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_api_keys_tenant_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("tenants")
    op.drop_table("replicas")
    op.drop_table("audit_salts")
    op.drop_index(op.f("ix_audit_events_tenant_id"), table_name="audit_events")
    op.drop_index("ix_audit_events_subject_id_seq", table_name="audit_events")
    op.drop_table("audit_events")
