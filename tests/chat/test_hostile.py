"""No text crashes the service, holds it for two seconds, or takes 200 MiB; see `tests.chat.hostile`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from app.settings import Settings


def send(settings: Settings, examples: int, step: int) -> dict[str, Any]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "LETHE_DATABASE_URL": settings.database_url,
        "LETHE_REDIS_URL": settings.redis_url,
        "LETHE_EXPERTS_DIR": str(settings.experts_dir),
        "LETHE_MODEL": settings.model,
        "LETHE_DEVICE": "cpu",
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.chat.hostile", str(examples), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=3000)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-3000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_hostile_texts(chat_settings: Settings) -> None:
    found = send(chat_settings, 2, 9)
    for status in ("200", "202", "400", "404", "413", "415", "422"):
        assert found["statuses"].get(status, 0) > 0, found


@pytest.mark.long
def test_many_hostile_texts(chat_settings: Settings) -> None:
    send(chat_settings, 2000, 1)
