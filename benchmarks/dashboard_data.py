"""A database as after years of use: ten thousand requests, their events, experts, figures and audit events.

Written with SQL alone, in the sizes that the service would leave behind. Hashes are unique, not a valid
chain: what is timed reads them, and does not recompute them.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

FILL: tuple[str, ...] = (
    """CREATE TEMPORARY TABLE made AS
    SELECT i, 'req_' || lpad(to_hex(i), 12, '0') || lpad(to_hex(i * 7919), 20, '0') AS id,
      now() - (:requests - i) * interval '1 hour' AS at,
      CASE WHEN i % (:requests / :active) = 0 THEN 'active'
        ELSE (ARRAY['cancelled', 'rejected', 'revoked', 'failed', 'cancelled', 'rejected', 'in_review',
          'needs_attention', 'queued', 'training'])[1 + i % 10] END AS state
    FROM generate_series(1, :requests) AS i""",
    """INSERT INTO removal_requests (id, tenant_id, created_by, state, stage, percent, message, attempt,
      klass, legal_ground, subject_sealed, subject_token, base_knows_subject, created_at, updated_at,
      queued_at, expected_by)
    SELECT id, :tenant, :key, state, CASE WHEN state = 'training' THEN 'train' END,
      CASE state WHEN 'active' THEN 100 WHEN 'training' THEN 35 ELSE 0 END, '', 1, 'Personage', 'gdpr_art_17',
      NULL, md5(id) || md5(id || 'x'), true, at, at + interval '20 seconds', at,
      at + interval '30 days' FROM made""",
    """INSERT INTO request_events (id, request_id, kind, event, from_state, to_state, actor, created_at)
    SELECT 'evt_' || md5(made.id || step.n), made.id, 'state', step.event, NULL, step.state, 'worker:bench',
      made.at + step.n * interval '2 seconds'
    FROM made CROSS JOIN (VALUES (1, 'receive', 'received'), (2, 'submit', 'in_review'),
      (3, 'approve', 'approved'), (4, 'enqueue', 'queued'), (5, 'start_prepare', 'preparing'),
      (6, 'start_train', 'training'), (7, 'start_calibrate', 'calibrating'), (8, 'start_verify', 'verifying'),
      (9, 'start_publish', 'publishing'), (10, 'activate', 'active')) AS step (n, event, state)
    WHERE made.state = 'active' OR step.n <= 4 ORDER BY made.i, step.n""",
    """INSERT INTO request_events (id, request_id, kind, stage, percent, message, actor, created_at)
    SELECT 'evt_' || md5(made.id || 'p' || n), made.id, 'progress', 'train', 10 + n, 'step ' || n || ' of 20',
      'worker', made.at + n * interval '1 second'
    FROM made CROSS JOIN generate_series(1, 20) AS n WHERE made.state IN ('active', 'training')
    ORDER BY made.i, n""",
    """INSERT INTO evidence (id, request_id, content_sha256, sealed, width, height)
    SELECT 'evd_' || md5(id || n), id, md5(id || n) || md5(id), NULL, 64, 64
    FROM made, generate_series(1, 2) AS n""",
    """INSERT INTO experts (id, version, request_id, path, manifest_sha256, bytes, model_fingerprint)
    SELECT 'exp_' || substr(id, 5), 1, id, 'exp/1', md5(id) || md5(id), 483000, md5('model') FROM made
    WHERE state = 'active'""",
    """CREATE TEMPORARY TABLE published AS
    SELECT row_number() OVER (ORDER BY i) AS number, id, at FROM made WHERE state = 'active'""",
    """INSERT INTO generations (number, cause, request_id, experts, created_at)
    SELECT 2 * number - 1, 'protect', id, number - 1, at FROM published UNION ALL
    SELECT 2 * number, 'publish', id, number, at + interval '20 seconds' FROM published""",
    """INSERT INTO generation_experts (expert_id, version, from_generation)
    SELECT 'exp_' || substr(id, 5), 1, 2 * number FROM published""",
    """INSERT INTO verification_scores (id, request_id, attempt, metric, value, n, low, high, threshold,
      passed)
    SELECT 'scr_' || md5(p.id || m), p.id, 1, m, CASE WHEN m IN ('leak', 'gate_fpr') THEN 0 ELSE 1 END, 64,
      CASE WHEN m IN ('leak', 'gate_fpr') THEN 0 ELSE 0.944 END,
      CASE WHEN m IN ('leak', 'gate_fpr') THEN 0.056 ELSE 1 END, 0.5, true
    FROM published p CROSS JOIN unnest(ARRAY['forget_quality', 'leak', 'mu_rel', 'base_identity', 'gate_tpr',
      'gate_fpr', 'changed_answers', 'both_modalities', 'rouge_l', 'expert_over_refusal', 'mia_auc',
      'attack_delta', 'bypass_recovery', 'earlier_leak', 'earlier_forget_quality', 'base_knowledge']) AS m""",
    """INSERT INTO remeasurements (id, request_id, generation, metric, value, n, low, high)
    SELECT 'rms_' || md5(a.id || b.number || m), a.id, 2 * b.number, m,
      CASE WHEN m = 'leak' THEN 0 ELSE 1 END, 8, 0, 1
    FROM published b JOIN published a ON a.number <= b.number
      AND (b.number - a.number) % greatest(1, b.number / 20) = 0
    CROSS JOIN unnest(ARRAY['forget_quality', 'leak']) AS m""",
    """INSERT INTO remeasurements (id, request_id, generation, metric, value, n, low, high)
    SELECT 'rms_' || md5(id || 'u'), id, 2 * number, 'changed_answers', 0, 60, 0, 0.06 FROM published""",
    """INSERT INTO audit_events (seq, id, tenant_id, kind, actor, subject_id, payload, created_at, prev_hash,
      hash)
    SELECT base.seq + row_number() OVER (ORDER BY e.seq), 'aud_' || md5(e.id), :tenant,
      'request.' || coalesce(e.event, 'progress'), 'worker:bench', e.request_id, '{"from": "x", "to": "y"}',
      e.created_at, md5(e.id) || md5('prev'), md5(e.id) || md5('hash')
    FROM request_events e CROSS JOIN (SELECT max(seq) AS seq FROM audit_events) AS base
    WHERE e.kind = 'state'""",
    """INSERT INTO replicas (id, name, model_fingerprint, generation, heartbeat_at)
    SELECT 'rep_' || md5(n::text), 'replica ' || n, md5('model'), 2 * (SELECT max(number) FROM published),
      now() + interval '1 hour' FROM generate_series(1, 3) AS n""",
)


def fill(session: Session, *, requests: int, active: int, tenant_id: str, key_id: str) -> dict[str, int]:
    """Write everything, and return how many rows each table has.

    Args:
        session: a transaction of its own.
        requests: how many.
        active: how many of them are active; each was published in a generation of its own.
        tenant_id: whose they are.
        key_id: who filed them.
    """
    values = {"requests": requests, "active": active, "tenant": tenant_id, "key": key_id}
    for statement in FILL:
        wanted = {name: value for name, value in values.items() if f":{name}" in statement}
        session.execute(text(statement), wanted)
    tables = (
        "removal_requests", "request_events", "experts", "generation_experts", "verification_scores",
        "remeasurements", "audit_events",
    )  # fmt: skip
    return {
        name: session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()  # noqa: S608 - names above
        for name in tables
    }
