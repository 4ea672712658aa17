"""Memory of a process with the base model alone, and with 127 experts: `python -m benchmarks.serving_memory`.

Each state is measured in a process of its own, as the service brings it about: files are read and checked,
gate and guard are built, and one conversation is answered with every expert.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.chat.loader import ExpertLoader
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.writers import bank_of
from app.registry.service import ExpertRow
from app.settings import load_settings
from benchmarks.serving_engine import questions
from benchmarks.serving_figures import ratios, spread
from benchmarks.serving_models import ModelName, load, source_of
from benchmarks.serving_stack import environment, house, write_experts

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is measured of one model."""

    model: ModelName
    experts: int
    runs: int
    threads: int = 1


def measure(plan: MemoryPlan, console: Console) -> dict[str, Any]:
    """Return MiB (PSS, USS) without and with experts, and the ratio to base plus the experts' bytes."""
    with (
        tempfile.TemporaryDirectory(prefix="lethe-serving-") as folder,
        house(Path(folder), threads=plan.threads) as place,
    ):
        mllm = load(plan.model)
        written = write_experts(place, mllm, plan.experts)
        rows = [
            [e.ref.expert_id, e.ref.version, str(e.ref.path), e.ref.manifest_sha256, e.request_id]
            for e in written
        ]
        listed = Path(folder) / "experts.json"
        listed.write_text(json.dumps({"fingerprint": mllm.fingerprint, "rows": rows}))
        del mllm
        found: dict[str, list[dict[str, float]]] = {"base": [], "experts": []}
        for run in range(plan.runs):
            for state in ("base", "experts") if run % 2 else ("experts", "base"):
                found[state].append(_in_process(plan, state, place.settings.experts_dir, listed))
        result = figures(found["base"], found["experts"], sum(e.ref.bytes for e in written))
    console.print(
        f"{plan.model}, {plan.experts} experts: PSS {result['base_mib']['median']:.0f} -> "
        f"{result['experts_mib']['median']:.0f} MiB, {result['ratio']['median']:.3f} of base and experts"
    )
    return {"model": plan.model, "experts": plan.experts, **result}


def figures(
    base: Sequence[dict[str, float]], experts: Sequence[dict[str, float]], nbytes: int
) -> dict[str, Any]:
    """Return the spread of the processes' MiB, and of with experts / (without + the experts' bytes)."""
    own = nbytes / _MIB
    return {
        "expert_files_mib": own,
        "base_mib": spread([p["pss"] for p in base]).as_json(),
        "experts_mib": spread([p["pss"] for p in experts]).as_json(),
        "base_uss_mib": spread([p["uss"] for p in base]).as_json(),
        "experts_uss_mib": spread([p["uss"] for p in experts]).as_json(),
        "slots_mib": experts[0]["slots"],
        "ratio": ratios([p["pss"] for p in experts], [p["pss"] + own for p in base]).as_json(),
    }


def _in_process(plan: MemoryPlan, state: str, experts_dir: Path, listed: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.serving_memory", state]
    command += ["--model", source_of(plan.model), "--experts-dir", str(experts_dir), "--rows", str(listed)]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, env=environment(plan.threads), capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the process that measures {state} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def resident_mib() -> dict[str, float]:
    """Return this process's PSS and USS in MiB, as the kernel counts them now (Linux)."""
    kib: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        kib[name] = int(value.split()[0])
    return {"pss": kib["Pss"] / 1024, "uss": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024}


def main() -> None:
    """Load what is asked for, answer, and print this process's memory as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("state", choices=("base", "experts"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--experts-dir", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    given = parser.parse_args()
    listed = json.loads(given.rows.read_text())
    mllm = MLLM.load(given.model, "cpu")
    settings = load_settings(_env_file=None, experts_dir=given.experts_dir, model=given.model)
    loader = ExpertLoader(settings, settings.evidence_cipher())
    rows = [
        ExpertRow(id, version, path, sha256, request_id, listed["fingerprint"])
        for id, version, path, sha256, request_id in listed["rows"]
    ]
    experts = loader.load(rows if given.state == "experts" else [])
    router = Router.build(mllm, experts)
    loader.drop_adapters()  # as a replica does
    asked = questions(4)
    router.answer(asked, max_new_tokens=8)
    for expert in experts:
        router.answer(asked[:1], max_new_tokens=2, force=expert.expert_id)
    gc.collect()
    print(json.dumps({**resident_mib(), "slots": bank_of(mllm).nbytes / _MIB}))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
