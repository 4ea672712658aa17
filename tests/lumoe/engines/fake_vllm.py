"""A small vLLM: its documented endpoints over real HTTP on loopback, with a real model behind them.

What it answers in which case (400, 404, plain text, server-sent events) is as vLLM 0.32 does it. Like the
real one it forgets its experts when it is restarted.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from app.lumoe.errors import ConversationTooLongError
from app.lumoe.expert import read_adapter
from app.lumoe.mllm import MLLM
from app.lumoe.sampling import Sampling
from app.lumoe.types import Conversation, Message
from app.lumoe.writers import Held, bank_of


class FakeVllm:
    """One server; the attributes are what can be wrong with it."""

    def __init__(self, mllm: MLLM, name: str = "base") -> None:
        self.mllm = mllm
        self.name = name
        self.api_key: str | None = None
        self.runtime_loading = True
        self.checks_names = True
        self.cannot_load = False
        self.refuses_chats = False
        self.break_after: int | None = None
        """Tokens after which the next answer breaks off; once."""
        self.experts: dict[str, tuple[str, Held]] = {}
        self.chats: list[str] = []
        """The models that streamed answers were asked of."""
        self.written = 0
        """Tokens of the last answer."""
        self._computing = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        fake = self

        class Handler(_Handler):
            server_of = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.experts = {}

    def restart(self) -> None:
        self.stop()
        self.start()

    def cards(self) -> list[dict[str, Any]]:
        base = {
            "id": self.name,
            "root": "/models/base",
            "parent": None,
            "max_model_len": self.mllm.max_tokens,
        }
        return [
            base,
            *({"id": key, "root": path, "parent": self.name} for key, (path, _) in self.experts.items()),
        ]

    def load(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return 400, _error("InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.experts:
            return 400, _error(
                "InvalidUserInput", f"The lora adapter '{name}' has already been loaded. If you want ..."
            )
        if self.cannot_load:
            return 500, _error("InternalServerError", "LoRA rank 8 is greater than max_lora_rank 4.")
        if not (Path(path) / "adapter_config.json").is_file():
            return 404, _error("NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        adapter, scale = read_adapter(Path(path))
        self.experts[name] = (path, bank_of(self.mllm).load(name, adapter, scale))
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def conversation(self, messages: list[dict[str, Any]]) -> Conversation:
        return tuple(_message(message) for message in messages)


class _Handler(BaseHTTPRequestHandler):
    server_of: FakeVllm
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._may() and self.path == "/v1/models":
            self._send(200, {"object": "list", "data": self.server_of.cards()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake = self.server_of
        if not self._may():
            return
        if self.path == "/v1/load_lora_adapter" and fake.runtime_loading:
            self._send(*fake.load(body))
        elif self.path == "/v1/chat/completions":
            self._chat(body)
        else:
            self._send(404, {"detail": "Not Found"})

    def _may(self) -> bool:
        key = self.server_of.api_key
        if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
            self._send(401, {"error": "Unauthorized"})
            return False
        return True

    def _chat(self, body: dict[str, Any]) -> None:
        fake, model = self.server_of, body["model"]
        if model != fake.name and model not in fake.experts and fake.checks_names:
            self._send(404, _error("NotFoundError", f"The model `{model}` does not exist."))
            return
        if body.get("stream") and fake.refuses_chats:
            self._send(400, _error("BadRequestError", "At most 1 image(s) may be provided in one prompt."))
            return
        conversation = fake.conversation(body["messages"])
        prompt = fake.mllm.prompt_ids(conversation)
        if not body.get("stream"):
            self._send(200, self._whole(body, conversation, prompt))
            return
        fake.chats.append(model)
        try:
            self._stream(body, conversation, prompt)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _whole(self, body: dict[str, Any], conversation: Conversation, prompt: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {"model": body["model"], "choices": [{"message": {"content": ""}}]}
        if body.get("prompt_logprobs") is not None:
            with self.server_of._computing:
                values = self.server_of.mllm.prompt_loglik(conversation)
            rows = [{str(t): {"logprob": v}} for t, v in zip(prompt[1:], values, strict=True)]
            found |= {"prompt_token_ids": prompt, "prompt_logprobs": [None, *rows]}
        return found

    def _stream(self, body: dict[str, Any], conversation: Conversation, prompt: list[int]) -> None:
        fake, model = self.server_of, body["model"]
        held = fake.experts[model][1] if model in fake.experts else None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")  # so that nobody is answered by a server that was stopped
        self.end_headers()
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        self._event({"model": model, "choices": [first], "prompt_token_ids": prompt})
        fake.written = 0
        breaks, fake.break_after = fake.break_after, None

        def push(_: int, token: int) -> bool:
            if breaks is not None and fake.written >= breaks:
                raise BrokenPipeError
            fake.written += 1
            self._event({"model": model, "choices": [_choice(token)]})
            return True

        bank = bank_of(fake.mllm)
        drawn = Sampling(body["temperature"], body.get("top_p", 1.0), body.get("seed"))
        with fake._computing, bank.active([bank._slots[held.key] if held else None]):
            try:
                (written,) = fake.mllm.generate(
                    [conversation], max_new_tokens=body["max_tokens"], sink=push, samplings=[drawn]
                )
            except ConversationTooLongError:
                written = None
        if written is None:
            self._event({"error": {"message": "too long"}})
        else:
            stopped = written.finish_reason == "stop"
            last = _choice(*([min(fake.mllm.eos_ids)] if stopped else []))
            self._event({"model": model, "choices": [last | {"finish_reason": written.finish_reason}]})
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: object) -> None:
        text = event if isinstance(event, str) else json.dumps(event)
        line = f"data: {text}\n\n".encode()
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _send(self, status: int, body: object) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _choice(*tokens: int) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": "?"}, "finish_reason": None, "token_ids": list(tokens)}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": 0}}


def _message(message: dict[str, Any]) -> Message:
    content = message["content"]
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [part["text"] for part in parts if part["type"] == "text"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls
    ]
    return Message(message["role"], "\n".join(texts), tuple(pictures))
