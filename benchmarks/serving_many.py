"""An API process with thousands of experts: `python -m benchmarks.serving_many --experts N ...`.

As `app.serve`, but its experts are drawn identities that share the adapters of a few: each has names,
pictures and a gate record of its own, and thousands of adapters would take memory that is not being measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import uvicorn

from app import main as application
from app.api.connections import server_options
from app.chat.service import ChatEngine
from app.db.session import SessionFactory
from app.kit.memory import settle
from app.lumoe.mllm import MLLM, target_linears
from app.lumoe.router import Router
from app.settings import Settings, get_settings
from benchmarks.gate_experts import SharedAdapter, keep_records, kept_records, strangers
from benchmarks.serving_models import ALPHA, RANK, random_adapter
from benchmarks.serving_stack import record_of

DONORS = 16
_KIND = "serving"


def make_records(mllm: MLLM, n: int, place: Path) -> None:
    """Draw n identities and keep their gate records in `place`, unless there are as many already."""
    if len(kept_records(place, _KIND)) < n:
        keep_records(place, _KIND, [record_of(mllm, entity) for entity in strangers(n)])


def many_experts(mllm: MLLM, n: int, place: Path) -> list[SharedAdapter]:
    """Return n experts with the records of `make_records` and the adapters of `DONORS` random ones."""
    layers = target_linears(mllm.network)
    adapters = [random_adapter(layers, i) for i in range(DONORS)]
    return [
        SharedAdapter(
            f"exp_{i:032x}",
            1,
            f"req_{i:032x}",
            mllm.fingerprint,
            adapters[i % DONORS],
            ALPHA / RANK,
            record,
            f"donor@{i % DONORS}",
        )
        for i, record in enumerate(kept_records(place, _KIND)[:n])
    ]


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experts", type=int, required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()

    def start(settings: Settings, sessions: SessionFactory) -> ChatEngine:
        mllm = MLLM.load(settings.model, settings.device)
        engine = ChatEngine(settings, mllm, sessions)
        experts = many_experts(mllm, given.experts, given.records)
        engine.local.swap(Router.build(mllm, experts, engine.local.router.generation))
        settle()
        engine.agent.start()
        return engine

    replaced: Any = application
    replaced._start_engine = start
    settings = get_settings()
    uvicorn.run(
        application.create_app(settings),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        **server_options(settings),
    )


if __name__ == "__main__":
    main()
