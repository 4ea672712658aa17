"""A person's browser without a browser: keeps cookies, reads the forms of a page, sends them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi.testclient import TestClient

from tests.service import Service


@dataclass
class Browser:
    """One person's cookies, beside those of the client that other tests share."""

    client: TestClient
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = ({"Cookie": cookie} if cookie else {}) | arguments.pop("headers", {})
        self.client.cookies.clear()
        response = self.client.request(method, path, headers=headers, follow_redirects=False, **arguments)
        for name, value in response.cookies.items():
            self.cookies[name] = value
        for header in response.headers.get_list("set-cookie"):
            if re.search(r"max-age=0", header, re.IGNORECASE):
                self.cookies.pop(header.partition("=")[0], None)
        self.client.cookies.clear()
        return response

    def get(self, path: str, **arguments: Any) -> httpx2.Response:
        return self.ask("GET", path, **arguments)

    def send(self, path: str, page: str = "/dashboard", **fields: Any) -> httpx2.Response:
        """Send a form with the token that a page has."""
        files = fields.pop("files", None)
        return self.ask("POST", path, data={"csrf": self.token(page), **fields}, files=files)

    def token(self, page: str = "/dashboard") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(page).text)
        assert found, f"{page} has no form"
        return found[1]

    def log_in(self, key: str, next: str = "/dashboard") -> httpx2.Response:
        return self.send("/dashboard/login", "/dashboard/login", key=key, next=next)


def browser(service: Service, key: str | None = None) -> Browser:
    """A browser that is logged in with `key`, if there is one."""
    made = Browser(service.client)
    if key is not None:
        answer = made.log_in(key)
        assert answer.status_code == 303, answer.text
    return made


def links(page: str) -> set[str]:
    """Every address that a page leads to or loads."""
    return set(re.findall(r'(?:href|src|action|data-live)="([^"]*)"', page))
