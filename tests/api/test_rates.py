"""Rate limits: per key, over replicas, and not without Redis."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient

from app.api.rates import RateLimits
from app.kit.errors import RateLimited
from app.main import create_app
from app.settings import Settings
from tests.service import Service, assert_problem


def limited(settings: Settings, limit: str | None, **more: object) -> Settings:
    return settings.model_copy(update={"rate_limit": limit, **more})


@pytest.fixture
def replica(service: Service) -> Iterator[Callable[[str], Service]]:
    """A further API process on the same database and Redis, with this limit."""
    with ExitStack() as stack:

        def start(limit: str) -> Service:
            settings = limited(service.settings, limit)
            client = stack.enter_context(TestClient(create_app(settings, with_engine=False)))
            made = object.__new__(Service)
            made.__dict__ |= vars(service) | {"client": client, "settings": settings}
            return made

        yield start


def test_over_the_limit(replica: Callable[[str], Service]) -> None:
    api = replica("3/hour")
    assert [api.get("/requests").status_code for _ in range(5)] == [200] * 3 + [429] * 2
    response = api.get("/requests")
    assert "3 times" in assert_problem(response, 429, "rate-limited")["detail"]
    assert 1 <= int(response.headers["retry-after"]) <= 3600


def test_each_key_has_its_own(replica: Callable[[str], Service]) -> None:
    api = replica("2/hour")
    assert [api.get("/requests").status_code for _ in range(3)] == [200, 200, 429]
    assert api.get("/requests", api.operator).status_code == 200


def test_counted_over_all_replicas(replica: Callable[[str], Service]) -> None:
    one, other = replica("2/hour"), replica("2/hour")
    assert [api.get("/requests").status_code for api in (one, other, one, other)] == [200, 200, 429, 429]


def test_what_is_refused_counts_too(replica: Callable[[str], Service]) -> None:
    api = replica("2/hour")
    assert [api.get("/experts").status_code for _ in range(3)] == [403, 403, 429]


def test_every_one_of_several(replica: Callable[[str], Service]) -> None:
    api = replica("100/hour;2/day")
    assert [api.get("/requests").status_code for _ in range(3)] == [200, 200, 429]


def test_what_needs_no_key_has_no_limit(replica: Callable[[str], Service]) -> None:
    api = replica("1/hour")
    assert {api.client.get("/healthz").status_code for _ in range(5)} == {200}


def test_nobody_is_refused_without_redis(service: Service) -> None:
    rates = RateLimits(limited(service.settings, "1/hour", redis_url="redis://127.0.0.1:1/0"))
    for _ in range(5):
        rates.check("key_a")


def test_without_a_limit(service: Service) -> None:
    rates = RateLimits(limited(service.settings, None))
    for _ in range(50):
        rates.check("key_a")


def test_says_what_to_do(service: Service) -> None:
    rates = RateLimits(limited(service.settings, "1/minute"))
    rates.check("key_a")
    with pytest.raises(RateLimited, match="1 times in 60 s") as raised:
        rates.check("key_a")
    assert raised.value.hint.startswith("Ask again in ")
