"""Identifiers that sort by time: a readable prefix and a UUIDv7 in hex."""

import re
from typing import Literal

import uuid_utils

Prefix = Literal[
    "req",
    "exp",
    "evd",
    "key",
    "evt",
    "ten",
    "out",
    "rep",
    "aud",
    "scr",
    "cht",
    "prt",
    "vex",
    "rms",
    "whk",
    "whm",
    "wha",
    "chatcmpl",
    "ses",
    "pol",
]


def new_id(prefix: Prefix) -> str:
    """Return a fresh id such as `req_01a20a91610c7527afee37a6345c8f6a`.

    Ids of one prefix sort in the order in which they were made (millisecond precision).
    """
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def expert_id_of(request_id: str) -> str:
    """Return the id of a request's expert, the same for all its versions and before there is one."""
    return "exp_" + request_id.removeprefix("req_")


def is_id(text: str, prefix: Prefix) -> bool:
    """Tell whether `text` has the form of an id with this prefix."""
    return re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", text) is not None
