"""One vLLM server, as its clients see it: what it serves, loading an expert, streaming an answer's tokens."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
from PIL.Image import Image

from app.lumoe.errors import LumoeError
from app.lumoe.mllm import MLLM
from app.lumoe.types import Conversation

CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 2.0  # less than the server's own, so that no request goes out on a connection it is closing
_NOT_NOW = (408, 425, 429)


class ReplicaError(LumoeError):
    """A vLLM replica did not do what it was asked; the message names it and says what to do."""


class ReplicaUnreachableError(ReplicaError):
    """It does not answer, or fails: another replica may do better, and so may this one later."""


class WrongModelError(ReplicaError):
    """It serves another model than ours, or cannot serve ours as we need it: never to be asked."""


class ExpertLostError(ReplicaError):
    """It does not know the expert that was asked for; it has been restarted."""


class RequestRefusedError(ReplicaError):
    """It does not answer this one request, or not the one that we meant. It may answer others."""


class ExpertRefusedError(ReplicaError):
    """It cannot load an expert."""


@dataclass(frozen=True, slots=True)
class Card:
    """One model that a replica lists: `parent` is None for base models, `root` is where it comes from."""

    id: str
    root: str | None
    parent: str | None
    max_model_len: int | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: the prompt's tokens (first piece only), new tokens, and why it ended, at last."""

    prompt_ids: tuple[int, ...] | None
    token_ids: tuple[int, ...]
    finish_reason: str | None


class ReplicaClient:
    """HTTP to one vLLM server; usable from any thread.

    Args:
        url: where it listens, without `/v1`.
        api_key: what it was started with as `--api-key`, if anything.
        timeout: seconds until the first token, and between two tokens.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[Card]:
        """Return what it lists: its base model and the experts that it has."""
        try:
            return [
                Card(str(card["id"]), card.get("root"), card.get("parent"), card.get("max_model_len"))
                for card in self._call("GET", "/v1/models", timeout=CONNECT_SECONDS).json()["data"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WrongModelError(f"{self.url} does not answer as vLLM does under /v1/models") from error

    def load(self, name: str, path: str) -> None:
        """Have it load the expert that lies at `path` as `name`; one that is there already is no error."""
        body = {"lora_name": name, "lora_path": path, "load_inplace": False}
        response = self._call("POST", "/v1/load_lora_adapter", json=body, expect=(200, 400, 404, 500))
        if response.status_code == 200 or (
            response.status_code == 400 and "already been loaded" in response.text
        ):
            return
        if response.status_code == 404 and "error" not in _json(response):
            raise WrongModelError(
                f"{self.url} cannot load experts: start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
            )
        raise ExpertRefusedError(
            f"{self.url} cannot load expert {name} from {path}: {_reason(response)}. It must see the experts "
            "directory there (LETHE_VLLM_EXPERTS_DIR), and --max-lora-rank must be at least the expert's rank"
        )

    def knows(self, model: str) -> bool:
        """Tell whether it answers for a model of this name."""
        body = {"model": model, "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        return self._call("POST", "/v1/chat/completions", json=body, expect=(200, 404)).status_code == 200

    def prompt_loglik(self, model: str, messages: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
        """Return the prompt's tokens, and the log-likelihood in nats of each of them but the first."""
        body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0}
        body |= {"prompt_logprobs": 0, "return_token_ids": True}
        found = self._call("POST", "/v1/chat/completions", json=body).json()
        try:
            ids = [int(token) for token in found["prompt_token_ids"]]
            rows = found["prompt_logprobs"][1:]
            values = [float(row[str(token)]["logprob"]) for token, row in zip(ids[1:], rows, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise WrongModelError(
                f"{self.url} does not tell the likelihoods of prompt tokens: vLLM 0.32 does"
            ) from error
        return ids, values

    @contextmanager
    def answering(self, body: Mapping[str, Any]) -> Iterator[Iterator[Chunk]]:
        """Stream an answer; leaving the block early cancels it on the replica.

        Raises `ReplicaError`, at once or while it streams.
        """
        try:
            with self._http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
                if response.status_code != 200:
                    response.read()
                    self._refused(response, str(body["model"]))
                yield self._chunks(response, str(body["model"]))
        except httpx.TransportError as error:
            raise ReplicaUnreachableError(f"{self.url} broke off ({type(error).__name__})") from error

    def _chunks(self, response: httpx.Response, model: str) -> Iterator[Chunk]:
        for line in response.iter_lines():
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if not data or data == "[DONE]":
                continue
            try:
                event = json.loads(data)
                if "error" in event:
                    raise ReplicaUnreachableError(f"{self.url} failed while it answered")
                if event["model"] != model:
                    raise WrongModelError(f"{self.url} answered as {event['model']!r} instead of {model!r}")
                choices = event["choices"]
                prompt = event.get("prompt_token_ids")
                if choices or prompt:
                    choice = choices[0] if choices else {}
                    yield Chunk(
                        tuple(prompt) if prompt is not None else None,
                        tuple(choice.get("token_ids") or ()),
                        choice.get("finish_reason"),
                    )
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise ReplicaUnreachableError(f"{self.url} sent what is no answer of vLLM's") from error

    def _call(
        self,
        method: str,
        path: str,
        *,
        expect: Sequence[int] = (200,),
        json: object = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        options: dict[str, Any] = {"timeout": timeout} if timeout is not None else {}
        try:
            response = self._http.request(method, path, json=json, **options)
        except httpx.TransportError as error:
            raise ReplicaUnreachableError(f"{self.url} does not answer ({type(error).__name__})") from error
        if response.status_code not in expect:
            self._refused(response)
        return response

    def _refused(self, response: httpx.Response, model: str | None = None) -> NoReturn:
        status = response.status_code
        if status == 404 and model is not None and "error" in _json(response):
            raise ExpertLostError(f"{self.url} does not know {model}: it must have been restarted")
        if status in (400, 413, 422) and model is not None:
            raise RequestRefusedError(f"{self.url} refuses a conversation: {_reason(response)}")
        if status in (401, 403):
            raise WrongModelError(f"{self.url} refuses our key: set LETHE_VLLM_API_KEY to its --api-key")
        if status >= 500 or status in _NOT_NOW:
            raise ReplicaUnreachableError(f"{self.url} answers with {status}")
        raise WrongModelError(f"{self.url} refuses what it is asked: {_reason(response)}")


def chat_messages(mllm: MLLM, conversation: Conversation) -> list[dict[str, Any]]:
    """Return a conversation in OpenAI's form, as the model's own prompt has it: pictures before text."""
    return [
        {
            "role": message.role,
            "content": [
                *({"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images),
                {"type": "text", "text": mllm.plain(message.text)},
            ],
        }
        for message in conversation
    ]


def _data_url(image: Image) -> str:
    sink = io.BytesIO()
    image.save(sink, "PNG", compress_level=1)  # without loss: the replica's tower sees what ours sees
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(response: httpx.Response) -> str:
    """Return what the server says, short: it may repeat what was asked."""
    error = _json(response).get("error")
    told = error.get("type") or error.get("message") if isinstance(error, dict) else None
    return f"{response.status_code} {told or ''}".strip()
