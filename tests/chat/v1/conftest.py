"""A real server on loopback: uvicorn, the whole application, a tiny model. One for the whole package."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openai import DefaultHttpxClient, OpenAI

from app.accounts.service import create_key
from app.chat.service import ChatEngine
from app.db.session import SessionFactory
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey
from app.lumoe.decoding import Writing
from app.main import create_app
from app.settings import load_settings

MODEL = "tiny-v1"
Speak = Callable[..., None]


@dataclass
class Live:
    """The server's address, its engine, and keys for it."""

    url: str
    engine: ChatEngine
    sessions: SessionFactory

    def __post_init__(self) -> None:
        self.chat, self.operator, self.owner = (self._key(s) for s in ("chat", "operator", "owner"))

    def _key(self, scope: str) -> str:
        with self.sessions.begin() as session:
            return create_key(session, tenant="acme", scopes=[scope]).secret

    def client(self, key: str | None = None) -> OpenAI:
        http = DefaultHttpxClient(trust_env=False)
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.chat, max_retries=0, timeout=30, http_client=http
        )

    def post(self, body: dict[str, Any] | bytes, key: str | None = None, **headers: str) -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as http:
            sent = {
                "Authorization": f"Bearer {key or self.chat}",
                "Content-Type": "application/json",
            } | headers
            return http.post("/v1/chat/completions", headers=sent, **content)


@pytest.fixture(scope="package")
def live(
    postgres: EmbeddedPostgres,
    valkey: EmbeddedValkey,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
) -> Iterator[Live]:
    postgres.clone_database("v1", "lethe_template")
    folder = tmp_path_factory.mktemp("v1")
    (folder / MODEL).symlink_to(tiny_model)
    settings = load_settings(
        _env_file=None,
        database_url=postgres.url("v1"),
        redis_url=valkey.url(62),
        experts_dir=folder / "experts",
        model=str(folder / MODEL),
        device="cpu",
        registry_poll_seconds=0.1,
    )
    app = create_app(settings)
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:  # asyncio then sets TCP_NODELAY
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not (server.started and app.state.engine.ready):
            assert thread.is_alive()
            time.sleep(0.01)
        yield Live(
            f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.engine, app.state.session_factory
        )
        server.should_exit = True
        thread.join(timeout=30)
    postgres.drop_database("v1")


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    with live.client() as made:
        yield made


@pytest.fixture
def speak(live: Live, monkeypatch: pytest.MonkeyPatch) -> Speak:
    """Let the model say given texts, one after another, a byte at a time."""

    def install(*texts: str) -> None:
        said = iter(texts)
        mllm = live.engine.mllm
        scripts: dict[Writing, Iterator[int]] = {}
        take = Writing.take

        def scripted(row: Writing, _: int) -> None:
            if row not in scripts:
                tokens = mllm.tokenizer(next(said), add_special_tokens=False)["input_ids"]
                scripts[row] = iter([*tokens, *mllm.eos_ids])
            take(row, next(scripts[row]))

        monkeypatch.setattr(Writing, "take", scripted)

    return install
