"""A request that became active as the worker makes it: published, measured, activated."""

from app.registry.service import RegistryService
from app.removal.records import Score
from app.removal.states import Event
from tests.registry.test_service import Ref
from tests.service import Service

SCORES = (
    Score("forget_quality", 1.0, 40, 0.912, 1.0, 0.98, True),
    Score("mia_auc", None, 0, reason="needs a retrained model"),
)


def activate_verified(service: Service, name: str = "Elodie Brandt", *, expert_id: str = "exp_a") -> str:
    """File a request and bring it to `active`, its expert in the newest generation; return its id."""
    request_id: str = service.file(name)["id"]
    lease = service.work_until(request_id, "publish")
    with service.sessions.begin() as session:
        RegistryService(session, service.settings).publish(
            request_id=request_id, ref=Ref(expert_id), token=lease.token, model_fingerprint="f" * 64
        )
    with service.removal() as removal:
        removal.record_base_knowledge(request_id, True, token=lease.token)
        removal.save_scores(request_id, SCORES, attempt=1, token=lease.token)
        removal.transition(request_id, Event.ACTIVATE, actor="worker:test", token=lease.token)
    lease.release()
    return request_id
