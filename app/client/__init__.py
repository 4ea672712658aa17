"""A typed client for a running Lethe, synchronous and asynchronous; the command line uses it.

    with Client("http://127.0.0.1:8000", key) as lethe:
        filed = lethe.submit(name="Vessa Trovik", klass="Personage")
        for status in lethe.follow(filed["id"]):
            print(status["state"], status["percent"])

Answers are the wire's own dictionaries, typed (`app.client.types`). What the server refuses is raised as one
exception for each kind of problem (`app.client.errors`), with a `hint`.
"""

from app.client.asynchronous import AsyncClient
from app.client.calls import png, turn
from app.client.errors import ApiError, ClientError, StreamBrokenError, UnreachableError
from app.client.sync import Client
from app.client.types import Json, Turn

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "Json",
    "StreamBrokenError",
    "Turn",
    "UnreachableError",
    "png",
    "turn",
]
