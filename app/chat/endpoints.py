"""`POST /chat`."""

from __future__ import annotations
