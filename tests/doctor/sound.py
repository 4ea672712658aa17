"""A sound system to break: one request in every kind of place, real expert files, a replica, a checkpoint."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.audit.checkpoints import CheckpointService
from app.db.models import Replica
from app.db.session import SessionFactory
from app.doctor.findings import Check, Finding
from app.doctor.registry import check_files
from app.doctor.service import Looked, look
from app.kit.ids import expert_id_of, new_id
from app.registry.repository import ReplicaRepository
from app.registry.service import RegistryService
from app.removal.datakeys import DataKeys
from app.removal.records import Score
from app.removal.states import Event
from app.settings import Settings
from tests.doctor.files import FINGERPRINT, write
from tests.service import Place, Service, data_url, png


@dataclass
class Sound:
    """The ids of what there is."""

    settings: Settings
    sessions: SessionFactory
    active: str
    linked: str
    queued: str
    working: str
    failed: str
    in_review: str
    cancelled: str
    replica: str

    @property
    def expert(self) -> str:
        return expert_id_of(self.active)


def activate(service: Service, root: Path, name: str) -> str:
    """Bring a request to `active` with files that are really there."""
    request_id: str = service.file(name)["id"]
    lease = service.work_until(request_id, "publish")
    key = DataKeys(service.sessions, service.settings).of(request_id)
    ref = write(root, request_id, service.settings, key=key)
    with service.sessions.begin() as session:
        RegistryService(session, service.settings).publish(
            request_id=request_id, ref=ref, token=lease.token, model_fingerprint=FINGERPRINT
        )
    score = Score("forget_quality", 1.0, 40, 0.912, 1.0, 0.98, True)
    with service.removal() as removal:
        removal.save_scores(request_id, [score], attempt=1, token=lease.token)
        removal.transition(request_id, Event.ACTIVATE, actor="worker:test", token=lease.token)
    lease.release()
    return request_id


@pytest.fixture(scope="module")
def built(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    place.empty()
    root = tmp_path_factory.mktemp("experts")
    found = place.service("auto")
    service = Service(found.client, found.settings.model_copy(update={"experts_dir": root}), found.sessions)
    active = activate(service, root, "Elodie Brandt")
    linked = service.file("Elodie Brandt", pictures=[data_url(png("blue"))])["id"]
    working = service.file("Fern Adair")["id"]
    service.work_until(working, "train")
    failed = service.file("Ida Holm")["id"]
    lease = service.work_until(failed, "prepare")
    with service.removal() as removal:
        removal.transition(failed, Event.FAIL, actor="worker:test", token=lease.token, reason="no luck")
    lease.release()
    queued = service.file("Mira Voss", **{"class": "Animals"})["id"]
    cancelled = service.file("Otto Lind")["id"]
    service.post(f"/requests/{cancelled}/cancel", json={"reason": "changed my mind"})
    waiting = place.service("manual")
    in_review = waiting.file("Pia Sand", key=service.owner)["id"]
    replica = new_id("rep")
    with service.sessions.begin() as session:
        replicas = ReplicaRepository(session)
        replicas.register(Replica(id=replica, name="test", model_fingerprint=FINGERPRINT))
        replicas.acknowledge(replica, RegistryService(session, service.settings).newest())
        CheckpointService(session, service.settings).issue()
    return Sound(
        settings=service.settings,
        sessions=service.sessions,
        active=active,
        linked=linked,
        queued=queued,
        working=working,
        failed=failed,
        in_review=in_review,
        cancelled=cancelled,
        replica=replica,
    )


@dataclass
class Patient(Sound):
    """The sound system inside a transaction that is rolled back, with its own copy of the files."""

    session: Session
    inside: SessionFactory

    def break_(self, statement: str, **values: object) -> None:
        """Do something past the service."""
        self.session.execute(text(statement), values)
        self.session.expire_all()

    def looked(self) -> Looked:
        return look(self.session, self.settings)

    def findings(self) -> list[Finding]:
        looked = self.looked()
        keys = DataKeys(self.inside, self.settings)
        return [*looked.findings, *check_files(self.settings, looked.live, keys)]

    def found(self) -> set[tuple[Check, str]]:
        return {(finding.check, finding.subject) for finding in self.findings()}


@pytest.fixture
def patient(built: Sound, place: Place, tmp_path: Path) -> Iterator[Patient]:
    root = tmp_path / "experts"
    shutil.copytree(built.settings.experts_dir, root)
    with place.engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))  # break foreign keys, too
            heartbeat = "UPDATE replicas SET heartbeat_at = clock_timestamp()"  # the module may take its time
            session.execute(text(heartbeat))
            values = dict(vars(built)) | {"settings": built.settings.model_copy(update={"experts_dir": root})}
            inside = sessionmaker(connection, join_transaction_mode="create_savepoint")
            yield Patient(**values, session=session, inside=inside)
        transaction.rollback()
