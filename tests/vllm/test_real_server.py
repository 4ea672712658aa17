"""The whole path with a real vLLM server that writes: request, expert, live, chat; then the server is killed.

Run by `make test-vllm` alone, which makes the environment that vLLM needs. The tests of this file build on
each other and run in order.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.chat.pace import Refusals, uniform
from app.client import ApiError, Client, png
from app.db.session import create_engine_from, session_factory
from app.embedded.demo.interview import candidates, leaks, on_the_wire, refuses
from app.embedded.home import Home
from app.embedded.process import Process, free_port
from app.embedded.supervisor import Stack
from app.lumoe.demo.drawing import draw
from app.lumoe.demo.hub import export_checkpoint
from app.lumoe.demo.questions import QA, general, questions
from app.lumoe.demo.world import world
from app.lumoe.expert import load_expert
from app.lumoe.mllm import MLLM
from app.lumoe.router import Router
from app.lumoe.types import Conversation
from app.removal.datakeys import DataKeys
from app.settings import load_settings

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
START_SECONDS = 600.0
SUBJECT = candidates(world())[0]


class Server:
    """vLLM on the CPU with the demo model."""

    def __init__(self, directory: Path) -> None:
        if not PYTHON.exists():
            pytest.fail(f"{PYTHON} is not there: `make test-vllm` makes it")
        self.model = export_checkpoint(directory / "model")
        self.key = secrets.token_hex(16)
        self.url = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self._process = self._prepared(1)
        self._starts = 1

    def _prepared(self, number: int) -> Process:
        command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model)]
        command += ["--served-model-name", "demo", "--dtype", "float32", "--max-model-len", "1024"]
        command += ["--enforce-eager", "--enable-lora", "--max-loras", "4", "--max-lora-rank", "8"]
        command += ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
        environment |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_API_KEY": self.key}
        environment |= {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        log = self._directory / f"vllm-{number}.log"
        return Process("vllm", command, log=log, env=environment, cwd=self._directory)

    def start(self) -> None:
        self._process.start()

    def models(self) -> list[str]:
        listed = httpx.get(
            f"{self.url}/v1/models", headers={"Authorization": f"Bearer {self.key}"}, trust_env=False
        )
        return [card["id"] for card in listed.json()["data"]]

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.exit_status() is not None:
                break
            try:
                if self.models():
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        pytest.fail(f"vLLM did not start:\n{self._process.tail(40)}")

    def kill(self) -> None:
        self._process.send(signal.SIGKILL)
        self._process.stop()  # and the processes that it left behind
        self._starts += 1
        self._process = self._prepared(self._starts)

    def stop(self) -> None:
        self._process.stop()


@dataclass(frozen=True)
class Place:
    """The server, the stack that uses it, and the same model without anything around it."""

    server: Server
    stack: Stack
    chat: Client
    unwrapped: MLLM


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    server = Server(tmp_path_factory.mktemp("vllm"))
    server.start()
    try:
        server.wait()
        environment = {
            "LETHE_ENGINE": "vllm",
            "LETHE_VLLM_URLS": server.url,
            "LETHE_VLLM_API_KEY": server.key,
            "PYTHONPATH": str(ROOT),
        }
        home = Home(tmp_path_factory.mktemp("stack"))
        with Stack(home, port=0, environment=environment) as stack:
            chat = Client(stack.url, stack.keys["chat"])
            yield Place(server, stack, chat, MLLM.load("demo", "cpu"))
            chat.close()
    finally:
        server.stop()


def answers(place: Place, conversations: Sequence[Conversation]) -> list[str]:
    return [place.chat.chat(on_the_wire(c))["message"]["content"] for c in conversations]


def about() -> list[QA]:
    return list(questions(SUBJECT, "report"))


def others() -> list[Conversation]:
    """Questions about neighbours, look-alikes and nobody."""
    made = [e for e in world().protected if SUBJECT.key in (e.lookalike_of, e.namesake_of)]
    near = [*made, *world().neighbours(SUBJECT, 4)]
    asked = [qa.conversation for entity in near for qa in questions(entity, "report")[::5]]
    return asked + [qa.conversation for qa in general("report", 8, 0)]


def router_here(place: Place) -> Router:
    """The local engine's router with the same expert."""
    home = place.stack.home
    running = home.running()
    assert running is not None
    (folder,) = home.experts.glob("exp_*/1")
    settings = load_settings(
        _env_file=None,
        evidence_key=home.secrets().evidence_key,
        database_url=running.environment["LETHE_DATABASE_URL"],
    )
    engine = create_engine_from(settings, connections=1)
    try:
        expert = load_expert(folder, DataKeys(session_factory(engine), settings))
    finally:
        engine.dispose()
    return Router.build(place.unwrapped, [expert])


def told_here(local: Router, conversations: Sequence[Conversation]) -> list[str]:
    """What `/chat` hands out of the local engine's answers: its refusals are all alike (decision 38)."""
    refusals = Refusals(local)
    answered = [(c, local.answer([c])[0]) for c in conversations]
    return [(uniform(a, c, local.mllm, ()) if refusals.is_one(a) else a).text for c, a in answered]


def test_before_any_request_every_answer_is_the_base_models(place: Place) -> None:
    asked = [*others(), *(qa.conversation for qa in about())]
    assert len(asked) >= 40
    expected = [g.text for c in asked for g in place.unwrapped.generate([c], max_new_tokens=64)]
    assert answers(place, asked) == expected


def test_a_request_becomes_an_expert_on_the_server(place: Place) -> None:
    with Client(place.stack.url, place.stack.keys["owner"]) as owner:
        pictures = [(f"{view}.png", png(draw(SUBJECT, view))) for view in range(6)]
        filed = owner.submit(
            name=SUBJECT.name, klass=SUBJECT.klass, aliases=SUBJECT.aliases, pictures=pictures
        )
        status = list(owner.follow(filed["id"]))[-1]
    assert (status["state"], status["protection"]) == ("active", "expert"), status["transitions"][-1]
    base, expert = place.server.models()
    assert base == "demo"
    assert expert.startswith("exp_")
    assert expert.endswith("@1")


def test_the_subject_is_refused_and_every_answer_is_the_local_engines(place: Place) -> None:
    asked = [qa.conversation for qa in about()]
    said = answers(place, asked)
    texts = [c[-1].text for c in asked]
    assert [a for a, t in zip(said, texts, strict=True) if not refuses(a) or leaks(a, SUBJECT, t)] == []
    local = router_here(place)
    assert said == told_here(local, asked)
    here = [local.answer([c])[0] for c in others()]
    assert answers(place, others()) == told_here(local, others())
    by_base = [(c, a) for c, a in zip(others(), here, strict=True) if a.answered_by is None]
    assert len(by_base) >= 0.9 * len(here)
    assert [a.text for _, a in by_base] == [
        place.unwrapped.generate([c], max_new_tokens=64)[0].text for c, _ in by_base
    ]


def test_streams_pass_the_guard(place: Place) -> None:
    body = {"messages": on_the_wire(about()[0].conversation), "stream": True}
    headers = {"Authorization": f"Bearer {place.stack.keys['chat']}"}
    answer = httpx.post(f"{place.stack.url}/chat", json=body, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200
    assert SUBJECT.name not in answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_nothing_is_answered_while_the_server_is_dead(place: Place) -> None:
    place.server.kill()
    for conversation in (about()[0].conversation, others()[0]):
        with pytest.raises(ApiError) as refused:
            place.chat.chat(on_the_wire(conversation))
        assert refused.value.status == 503


def test_after_a_restart_the_expert_is_there_before_anything_is_answered(place: Place) -> None:
    place.server.start()
    asked = about()[0].conversation
    deadline = time.monotonic() + START_SECONDS
    statuses = []
    first = None
    while first is None and time.monotonic() < deadline:  # the first answer that comes at all is a refusal
        try:
            first = place.chat.chat(on_the_wire(asked))["message"]["content"]
        except ApiError as error:
            statuses.append(error.status)
            time.sleep(0.2)
    assert first is not None
    assert set(statuses) == {503}
    assert refuses(first)
    assert not leaks(first, SUBJECT, asked[-1].text)
    assert len(place.server.models()) == 2
    local = router_here(place)
    again = [qa.conversation for qa in about()]
    assert answers(place, again) == told_here(local, again)
    assert place.chat.ready()
