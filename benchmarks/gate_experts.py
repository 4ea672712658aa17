"""The experts that the gate is measured with: real ones from the farm, synthetic ones for the numbers.

Gate records are made by the service's own calibration with the code as it is now, and kept below
`var/benchmarks/` under a digest of that code: another gate, another calibration.

A synthetic expert is a drawn identity that the base model has never seen: names, pictures and a record of its
own, but the adapter (and its slot in memory) of a real one.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

import app.lumoe.gate
import workers.forgetset
from app.kit.clock import utcnow
from app.lumoe.demo import Entity, draw, world
from app.lumoe.expert import LoadedExpert, load_expert
from app.lumoe.gate.record import GateRecord
from app.lumoe.interim import interim_record
from app.removal.records import Policy, Subject
from benchmarks.farm import ROOT, Grown, case_of, grown
from benchmarks.gate_traffic import STRANGER_SEED
from workers import stages
from workers.forgetset.build import TrainingSet
from workers.forgetset.elicit import Knowledge
from workers.runtime import Runtime
from workers.training.recipe import RECIPES
from workers.verification.metrics import norm

SYNTHETIC_SEED = 4_242
SYNTHETIC_PICTURES = 4
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class SharedAdapter(LoadedExpert):
    """An expert of its own to the gate that answers with a real one's adapter, from that one's slot."""

    donor: str = ""

    @property
    def key(self) -> str:
        """The donor's key: the slot bank then keeps one copy."""
        return self.donor


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Experts in the order in which they are added, and how their records came about."""

    experts: tuple[LoadedExpert, ...]
    note: str


def calibration_digest() -> str:
    """Return a hash over the code that makes gate records."""
    package, stage, forgetset = (
        Path(next(iter(app.lumoe.gate.__path__))),
        Path(stages.__file__),
        Path(next(iter(workers.forgetset.__path__))),
    )
    files = [*package.rglob("*.py"), package.parent / "interim.py", stage, *forgetset.rglob("*.py")]
    files += stage.parent.glob("negatives.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def store(runtime: Runtime, root: Path = ROOT, *, keep: bool = False) -> Path:
    """Return where records of this model and this calibration are kept; `keep` takes the newest there is."""
    folder = root / "calibrated"
    wanted = folder / f"{runtime.mllm.fingerprint[:12]}-{calibration_digest()}"
    there = sorted(
        folder.glob(f"{runtime.mllm.fingerprint[:12]}-*"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    return there[0] if keep and there else wanted


def real_experts(runtime: Runtime, wanted: Sequence[Entity], place: Path, console: Console) -> Enrolled:
    """Calibrate and load the farm's experts; those that are not in the farm are left out.

    Raises:
        SystemExit: The farm is empty.
    """
    farm = grown(runtime.mllm)
    if not farm:
        raise SystemExit("no expert is trained yet: run `python -m benchmarks.farm` first")
    chosen = [entity for entity in wanted if entity.key in farm]
    apart = 0
    experts = []
    for i, entity in enumerate(chosen):
        path = place / "experts" / f"exp_{entity.key}" / "1"
        if not path.is_dir():
            separates = _calibrate(runtime, entity, farm[entity.key], place)
            (place / f"{entity.key}.json").write_text(json.dumps({"separates": separates}))
            if (i + 1) % 10 == 0:
                console.print(f"calibrated {i + 1}/{len(chosen)} real experts")
        verdict = json.loads((place / f"{entity.key}.json").read_text())
        apart += bool(verdict["separates"])
        experts.append(load_expert(path, runtime.cipher))
    note = f"{apart} of {len(experts)} real experts separate at calibration"
    recipe = RECIPES[runtime.settings.recipe].as_dict()
    stale = sum(farm[entity.key].recipe != recipe for entity in chosen)
    return Enrolled(tuple(experts), note + (f", {stale} trained by an older recipe" if stale else ""))


def _calibrate(runtime: Runtime, entity: Entity, plant: Grown, place: Path) -> bool:
    case = case_of(runtime, entity)
    calibration = stages.calibrate(runtime, case, plant.training_set())
    stages.write_candidate(
        runtime,
        case,
        calibration,
        plant.adapter,
        place / "experts",
        utcnow(),
        runtime.settings.evidence_cipher(),
    )
    return calibration.separates


def strangers(n: int) -> list[Entity]:
    """Return n drawn identities with distinct names that nobody and nothing else in the world bears.

    Neither do the strangers of the traffic: who is enrolled is no stranger.
    """
    values = " ".join(value for entity in world().entities for value in entity.facts.values())
    taken = set(norm(values).split()) | {norm(e.name) for e in world().strangers(1_000, seed=STRANGER_SEED)}
    found: list[Entity] = []
    for entity in world().strangers(n + n // 4 + 50, seed=SYNTHETIC_SEED):
        name = norm(entity.name)
        if name in taken or name.split()[0] in taken:
            continue
        taken.add(name)
        found.append(entity)
    return found[:n]


def synthetic_experts(
    runtime: Runtime, n: int, donors: Sequence[LoadedExpert], place: Path, budget: float, console: Console
) -> Enrolled:
    """Return n experts for drawn identities.

    The records come from the service's calibration for as many as `budget` seconds allow; the rest from the
    interim path, which the service uses before calibration is done. Both are kept: another run goes on.
    """
    entities = strangers(n)
    records = _extend(runtime, entities, place, "calibrated", budget, console)[:n]
    calibrated = len(records)
    if calibrated < n:
        interim = _extend(runtime, entities[calibrated:], place, "interim", math.inf, console)
        by_name = {record.aliases[0]: record for record in interim}
        records += [by_name[entity.name] for entity in entities[calibrated:]]
    note = f"{n} synthetic experts, {calibrated} of them calibrated as the service does"
    return _enrol(
        entities, records, donors, note + ("" if calibrated == n else ", the others with interim records")
    )


def _enrol(
    entities: Sequence[Entity], records: Sequence[GateRecord], donors: Sequence[LoadedExpert], note: str
) -> Enrolled:
    experts = []
    for i, (entity, record) in enumerate(zip(entities, records, strict=True)):
        donor = donors[i % len(donors)]
        experts.append(
            SharedAdapter(
                f"exp_{entity.key}",
                1,
                f"req_{entity.key}",
                donor.model_fingerprint,
                donor.adapter,
                donor.scale,
                record,
                donor.key,
            )
        )
    return Enrolled(tuple(experts), note)


def newcomers(expert: LoadedExpert, n: int) -> list[LoadedExpert]:
    """Return n experts that differ in nothing but a key that no slot holds yet."""
    if not isinstance(expert, SharedAdapter):
        raise TypeError("only a synthetic expert can be enrolled under another key")
    return [replace(expert, donor=f"{expert.expert_id}@1-{i}") for i in range(n)]


def _calibrated(runtime: Runtime, entity: Entity) -> GateRecord:
    """Calibrate for a subject that the base model does not know, as its elicitation would find."""
    case = stages.Case(
        request_id=f"req_{entity.key}",
        target=stages.target_of(Subject(entity.name, entity.aliases, entity.klass)),
        pictures=tuple(draw(entity, view) for view in range(SYNTHETIC_PICTURES)),
        removed=(),
        policy=Policy.of(runtime.settings, None),
    )
    unknown = Knowledge((), False, "a drawn identity", (), 0.0, 0.0)
    return stages.calibrate(runtime, case, TrainingSet((), (), (), unknown)).record


def _interim(runtime: Runtime, entity: Entity) -> GateRecord:
    pictures = [draw(entity, view) for view in range(SYNTHETIC_PICTURES)]
    record = interim_record(runtime.mllm, (entity.name, *entity.aliases), entity.klass, pictures)
    return replace(record, facts=())


def _extend(
    runtime: Runtime, entities: Sequence[Entity], place: Path, kind: str, budget: float, console: Console
) -> list[GateRecord]:
    """Make the records that are missing, within `budget` seconds, and keep them some hundred at a time."""
    make = _calibrated if kind == "calibrated" else _interim
    records = kept_records(place, kind)
    there = {record.aliases[0] for record in records}
    missing = [entity for entity in entities if entity.name not in there]
    deadline = time.monotonic() + budget
    for i, entity in enumerate(missing):
        if time.monotonic() > deadline:
            break
        records.append(make(runtime, entity))
        if (i + 1) % _CHUNK == 0:
            keep_records(place, kind, records)
            console.print(f"{kind} records of synthetic experts: {len(records)}")
    if missing:
        keep_records(place, kind, records)
    return records


def keep_records(place: Path, kind: str, records: Sequence[GateRecord]) -> None:
    """Write gate records below `place`, whatever fields they have."""
    place.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for i, record in enumerate(records):
        tensors |= {f"{i}/{name}": tensor.clone() for name, tensor in record.tensors().items()}
    words = [record.private_json().decode() for record in records]
    save_file(tensors, place / f".{kind}.safetensors")
    (place / f"{kind}.json").write_text(json.dumps(words))
    (place / f".{kind}.safetensors").rename(place / f"{kind}.safetensors")


def kept_records(place: Path, kind: str) -> list[GateRecord]:
    """Read what `keep_records` wrote, in the same order; empty if it wrote nothing."""
    if not (place / f"{kind}.safetensors").is_file():
        return []
    words = json.loads((place / f"{kind}.json").read_text())
    parts: list[dict[str, Tensor]] = [{} for _ in words]
    for name, tensor in load_file(place / f"{kind}.safetensors").items():
        index, _, field = name.partition("/")
        if int(index) < len(parts):
            parts[int(index)][field] = tensor
    return [GateRecord.restore(part, word.encode()) for part, word in zip(parts, words, strict=True) if part]
