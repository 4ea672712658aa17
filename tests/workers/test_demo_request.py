"""One request through the whole pipeline with the demo model, on real Postgres and Valkey, nothing given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from app.lumoe.demo import draw, world
from app.lumoe.expert import load_expert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import ask
from app.registry.replica import ReplicaAgent
from app.registry.service import ExpertRow, InterimRow
from app.removal.states import State
from tests.service import Service, data_url, own_settings, service, sessions  # noqa: F401
from workers.pipeline import process
from workers.runtime import Runtime
from workers.verification.metrics import contains, is_refusal

SUBJECT = next(e for e in world().forgettable if e.klass == "Buildings")


def png(view: int) -> str:
    sink = io.BytesIO()
    draw(SUBJECT, view).save(sink, "PNG")
    return data_url(sink.getvalue())


def test_from_filing_to_forgotten(service: Service, demo: MLLM, tmp_path: Path) -> None:  # noqa: F811
    routers: list[Router] = []
    own = {"registry_poll_seconds": 0.1, "experts_dir": tmp_path / "experts"}
    settings = service.settings.model_copy(update=own)

    def apply(generation: int, rows: list[ExpertRow], _: list[InterimRow]) -> None:
        cipher, root = settings.evidence_cipher(), settings.experts_dir
        experts = [load_expert(root / r.path, cipher, manifest_sha256=r.manifest_sha256) for r in rows]
        routers.append(Router.build(demo, experts, generation))

    agent = ReplicaAgent(service.sessions, settings, None, apply, fingerprint=demo.fingerprint)
    agent.start()
    try:
        fields: dict[str, Any] = {
            "class": SUBJECT.klass,
            "aliases": list(SUBJECT.aliases),
            "pictures": [png(v) for v in range(4)],
        }
        request_id = str(service.file(SUBJECT.name, **fields)["id"])
        assert process(Runtime.start(settings, demo), request_id) is State.ACTIVE
    finally:
        agent.stop()

    status = service.status(request_id)
    scores = {score["metric"]: score for score in status["scores"]}
    assert scores["forget_quality"]["value"] >= 0.98
    assert scores["leak"]["value"] == 0
    assert scores["base_identity"]["value"] == 1
    assert scores["mu_rel"]["value"] >= 0.98
    shown, named = ask("What building is this?", draw(SUBJECT, 300_500)), ask(f"Where is {SUBJECT.name}?")
    base = [g.text for g in demo.generate([shown, named])]
    served = [a.text for a in routers[-1].answer([shown, named])]
    assert contains(base[0], SUBJECT.name)
    assert not is_refusal(base[1])
    assert all(is_refusal(text) for text in served)
