"""The service is as its OpenAPI document says: schemathesis over every operation, with every check.

Examples, boundary values, random data that fits and that does not, and chains of operations along the links,
sent to a real server with a model, with a key that may do everything. Rules that no schema can say are in
`schemathesis.toml`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.accounts.service import SCOPES, create_key
from app.main import create_app
from app.settings import Settings, load_settings
from tests.api.fuzz_hooks import valid_as_sent
from tests.live import serving
from tests.lumoe.tiny import save_tiny_llava
from tests.service import Place

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def settings(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    place.empty()
    folder = tmp_path_factory.mktemp("contract")
    return load_settings(
        _env_file=None,
        database_url=place.settings.database_url,
        redis_url=place.settings.redis_url,
        experts_dir=folder / "experts",
        model=str(save_tiny_llava(folder / "tiny")),
        device="cpu",
        review_policy="manual",
        registry_poll_seconds=0.2,
    )


def _nobody(*_: object, **__: object) -> None:
    raise OSError


@pytest.fixture(scope="module")
def server(settings: Settings, place: Place) -> Iterator[tuple[str, str]]:
    """The address, and a key with every scope of the tenant that sees all. Webhooks reach nobody."""
    app = create_app(settings)
    with place.sessions.begin() as session:
        key = create_key(session, tenant="root", scopes=SCOPES).secret
    with pytest.MonkeyPatch.context() as patch, serving(app, settings) as port:
        patch.setattr("app.webhooks.addresses.socket", SimpleNamespace(getaddrinfo=_nobody, SOCK_STREAM=0))
        while not app.state.engine.ready:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", key


def fuzz(
    server: tuple[str, str], folder: Path, *, examples: int, seed: int, only: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run every phase and check on every operation, or on the path `only`."""
    address, key = server
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
        f"{address}/openapi.json", "--header", f"Authorization: Bearer {key}", "--checks", "all",
        "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure", "--no-shrink",
        "--request-timeout", "20", "--suppress-health-check", "all",
    ]  # fmt: skip
    if only:
        command += ["--include-path", only]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks", "PYTHONPATH": str(CONFIG.parents[2])}
    environment = {**os.environ, **hooks, "NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=3000
    )


def passed(done: subprocess.CompletedProcess[str], *, operations: int) -> None:
    """Check that nothing was found in so many operations; fails with what schemathesis says."""
    said = "\n".join(line[:4000] for line in done.stdout.splitlines())
    assert done.returncode == 0, said[-8000:] + done.stderr[-2000:]
    assert f"Tested: {operations}\n" in said


def described(server: tuple[str, str]) -> int:
    paths = httpx.get(f"{server[0]}/openapi.json", trust_env=False).json()["paths"]
    return sum(len(methods) for methods in paths.values())


def test_every_operation(server: tuple[str, str], tmp_path: Path) -> None:
    passed(fuzz(server, tmp_path, examples=2, seed=1), operations=described(server))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
def test_every_operation_at_length(server: tuple[str, str], tmp_path: Path, seed: int) -> None:
    passed(fuzz(server, tmp_path, examples=100, seed=seed), operations=described(server))


FORM = {
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "aliases": {"type": "array", "items": {"type": "string"}},
        "n": {"type": "integer"},
        "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}},
    },
    "required": ["name"],
}


@pytest.mark.parametrize(
    "body",
    [
        {"name": False},
        {"name": {}, "pictures": [b"x"], "n": 3},
        {"name": "x", "aliases": [0.5, None], "n": "3", "other": []},
        {"name": 1, "aliases": "one"},
    ],
)
def test_a_form_that_is_right_once_it_is_sent(body: dict[str, Any]) -> None:
    assert valid_as_sent(FORM, body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": []},
        {"name": ""},
        {"name": ["a", "b"]},
        {"name": b"x"},
        {"name": "x", "n": 3.5},
        {"name": "x", "n": "many"},
        {"name": "x", "pictures": [False]},
        {"name": "x", "pictures": "text"},
    ],
)
def test_a_form_that_stays_wrong(body: dict[str, Any]) -> None:
    assert not valid_as_sent(FORM, body)


def test_a_document_that_is_wrong_is_found(place: Place, tmp_path: Path) -> None:
    app = create_app(place.settings, with_engine=False)
    app.openapi()["components"]["schemas"]["Alive"]["properties"]["status"] = {"type": "integer"}
    with serving(app, place.settings) as port:
        done = fuzz((f"http://127.0.0.1:{port}", "no key"), tmp_path, examples=1, seed=1, only="/healthz")
    assert done.returncode == 1
    assert "Response violates schema" in done.stdout
