from collections.abc import Iterator
from typing import cast

import pytest
from fastapi import FastAPI

from tests.service import Service, manual, own_settings, place, service, sessions, shared  # noqa: F401


@pytest.fixture
def house(service: Service) -> Iterator[Service]:  # noqa: F811  a fixture
    """The service, allowed to send to loopback, as a test's receiver is nowhere else."""
    settings = service.settings.model_copy(update={"webhook_private_addresses": True})
    app = cast("FastAPI", service.client.app)
    before, app.state.settings = app.state.settings, settings
    yield Service(service.client, settings, service.sessions)
    app.state.settings = before
