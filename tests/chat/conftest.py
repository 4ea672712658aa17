"""The chat room on a tiny model and real servers, in process."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.accounts.service import create_key
from app.db.session import create_engine_from, session_factory
from app.main import create_app
from app.settings import Settings, load_settings
from tests.lumoe.tiny import save_tiny_llava


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("tiny-chat"))


@pytest.fixture
def chat_settings(database: str, redis_url: str, tmp_path: Path, tiny_model: Path) -> Settings:
    return load_settings(
        _env_file=None,
        database_url=database,
        redis_url=redis_url,
        experts_dir=tmp_path / "experts",
        model=str(tiny_model),
        device="cpu",
        max_text_chars=2000,
        max_pictures=3,
        registry_poll_seconds=0.1,
    )


@pytest.fixture
def client(chat_settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(chat_settings)) as client:
        yield client


@pytest.fixture
def chat_key(chat_settings: Settings) -> dict[str, str]:
    return key_of(chat_settings, "chat")


@pytest.fixture
def operator_key(chat_settings: Settings) -> dict[str, str]:
    return key_of(chat_settings, "operator")


def key_of(settings: Settings, scope: str) -> dict[str, str]:
    engine = create_engine_from(settings)
    with session_factory(engine).begin() as session:
        made = create_key(session, tenant="acme", scopes=[scope], name=scope)
    engine.dispose()
    return {"Authorization": f"Bearer {made.secret}"}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()
