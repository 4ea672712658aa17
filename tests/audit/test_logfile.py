"""The exported log, checked with the public keys alone, and everything that can be done to it."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from app.audit.chain import Breach, content_hash
from app.audit.logfile import NotALog, verify_log
from app.audit.signing import SignatureProblem, Verifier, read_public_keys
from tests.service import Service

Lines = list[str]
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def cache() -> dict[str, Any]:
    return {}


@pytest.fixture
def log(shared: Service, cache: dict[str, Any]) -> Lines:
    """A log with three checkpoints in it, the root tenant's: everything in full."""
    if "log" not in cache:
        cache["first"] = shared.get("/audit/checkpoint", shared.auditor).json()["jws"]
        shared.file("Elodie Brandt")
        cache["second"] = shared.get("/audit/checkpoint", shared.auditor).json()["jws"]
        shared.file("Fern Adair", key=shared.stranger)
        cache["log"] = shared.get("/audit/export", shared.root).text.splitlines(keepends=True)
        cache["own"] = shared.get("/audit/export", shared.auditor).text.splitlines(keepends=True)
        cache["keys"] = json.dumps(shared.client.get("/.well-known/jwks.json").json())
    return list(cache["log"])


@pytest.fixture
def keys(log: Lines, cache: dict[str, Any]) -> Verifier:
    return Verifier(read_public_keys(cache["keys"]))


def entries(log: Lines) -> list[Entry]:
    return [json.loads(line) for line in log]


def _lines(changed: list[Entry]) -> Lines:
    return [json.dumps(entry) + "\n" for entry in changed]


def _events(log: Lines) -> int:
    return sum(entry["type"] == "event" for entry in entries(log))


def _edit(log: list[Entry]) -> list[Entry]:
    log[8]["actor"] = "somebody else"
    return log


def _edit_payload(log: list[Entry]) -> list[Entry]:
    log[8]["payload"] = {"from": "x"}
    return log


def _drop_a_member(log: list[Entry]) -> list[Entry]:
    del log[8]["tenant_id"]
    return log


def _edit_and_rehash(log: list[Entry]) -> list[Entry]:
    log[8]["actor"] = "somebody else"
    log[8]["hash"] = content_hash(log[8])
    return log


def _delete(log: list[Entry]) -> list[Entry]:
    return log[:8] + log[9:]


def _delete_first(log: list[Entry]) -> list[Entry]:
    return log[:1] + log[2:]


def _insert(log: list[Entry]) -> list[Entry]:
    forged = {**log[8], "seq": 9, "prev_hash": log[8]["hash"]}
    forged["hash"] = content_hash(forged)
    return [*log[:9], forged, *log[9:]]


def _insert_and_renumber(log: list[Entry]) -> list[Entry]:
    later = [{**entry, "seq": entry["seq"] + 1} if entry["type"] == "event" else entry for entry in log[9:]]
    return [*_insert(log)[:10], *later]


def _twice(log: list[Entry]) -> list[Entry]:
    return [*log[:9], log[8], *log[9:]]


def _reorder(log: list[Entry]) -> list[Entry]:
    log[8], log[9] = log[9], log[8]
    return log


def _reorder_and_renumber(log: list[Entry]) -> list[Entry]:
    log[8], log[9] = {**log[9], "seq": 8}, {**log[8], "seq": 9}
    return log


def _hide(log: list[Entry]) -> list[Entry]:
    """Another hash in the place of an event, as if it were somebody else's."""
    log[8] = {"type": "withheld", "seq": 8, "prev_hash": log[8]["prev_hash"], "hash": "a" * 64}
    return log


def _rewrite(log: list[Entry]) -> list[Entry]:
    """As somebody would who may write to the database: the chain fits itself again."""
    log[8]["actor"] = "somebody else"
    before = log[8]["prev_hash"]
    for entry in log[8:]:
        if entry["type"] == "event":
            entry["prev_hash"] = before
            entry["hash"] = before = content_hash(entry)
    return log


def _cut_events(log: list[Entry]) -> list[Entry]:
    last = max(entry["seq"] for entry in log if entry["type"] == "event")
    return [entry for entry in log if entry.get("seq") != last]


def _cut_checkpoints(log: list[Entry]) -> list[Entry]:
    return [entry for entry in log if entry["type"] != "checkpoint"]


def _cut_last_checkpoint(log: list[Entry]) -> list[Entry]:
    return log[:-1]


class TestTampering:
    def test_untouched(self, log: Lines, keys: Verifier) -> None:
        report = verify_log(log, keys)
        assert report.intact
        assert (report.events, report.checkpoints, report.withheld) == (_events(log), 3, 0)

    @pytest.mark.parametrize(
        ("tamper", "breach", "broken_at"),
        [
            (_edit, Breach.EDITED, 8),
            (_edit_payload, Breach.EDITED, 8),
            (_drop_a_member, Breach.EDITED, 8),
            (_edit_and_rehash, Breach.UNLINKED, 9),
            (_delete, Breach.MISSING, 9),
            (_delete_first, Breach.MISSING, 2),
            (_insert, Breach.OUT_OF_ORDER, 9),
            (_insert_and_renumber, Breach.UNLINKED, 10),
            (_twice, Breach.OUT_OF_ORDER, 8),
            (_reorder, Breach.MISSING, 9),
            (_reorder_and_renumber, Breach.UNLINKED, 8),
            (_hide, Breach.UNLINKED, 9),
            (_rewrite, Breach.DIVERGED, None),
            (_cut_events, Breach.TRUNCATED, None),
            (_cut_checkpoints, Breach.TRUNCATED, None),
            (_cut_last_checkpoint, Breach.TRUNCATED, None),
        ],
    )
    def test_shows(
        self,
        log: Lines,
        keys: Verifier,
        tamper: Callable[[list[Entry]], list[Entry]],
        breach: Breach,
        broken_at: int | None,
    ) -> None:
        report = verify_log(_lines(tamper(entries(log))), keys)
        assert (report.intact, report.breach) == (False, breach)
        assert report.reason
        if broken_at is not None:
            assert report.broken_at == broken_at

    def test_any_byte_of_any_event(self, log: Lines, keys: Verifier) -> None:
        """No member of an event can change without being found."""
        for number, entry in enumerate(entries(log)):
            if entry["type"] != "event":
                continue
            for member in entry:
                if member == "type":
                    continue
                value = entry[member]
                changed = {
                    **entry,
                    member: 0 if isinstance(value, int) else {"x": 1} if value == {} else "0" * 64,
                }
                if changed[member] == value:
                    continue
                broken = [*log[:number], json.dumps(changed) + "\n", *log[number + 1 :]]
                with contextlib.suppress(NotALog):
                    assert not verify_log(broken, keys).intact, (number, member)


class TestKept:
    def test_a_shorter_copy_is_found_out_by_what_was_kept(
        self, log: Lines, keys: Verifier, cache: dict[str, Any]
    ) -> None:
        """The log as it was at the first checkpoint is whole in itself; the second was seen, though."""
        head = json.loads(cache["log"][-3])
        size = json.loads(cache["log"][0])["events"]
        short = [
            line
            for line in log
            if json.loads(line)["type"] != "event" or json.loads(line)["seq"] <= _size(cache["first"])
        ]
        short = [line for line in short if json.loads(line)["type"] != "checkpoint"] + [
            json.dumps(head) + "\n"
        ]
        assert size > _size(cache["first"])
        assert verify_log(short, keys).intact
        report = verify_log(short, keys, [cache["second"]])
        assert (report.intact, report.breach) == (False, Breach.TRUNCATED)
        assert report.broken_at == _size(cache["first"]) + 1

    def test_agrees(self, log: Lines, keys: Verifier, cache: dict[str, Any]) -> None:
        assert verify_log(log, keys, [cache["first"], cache["second"]]).checkpoints == 5

    def test_a_kept_one_that_is_not_ours(self, log: Lines, keys: Verifier) -> None:
        with pytest.raises(SignatureProblem, match="not a compact JWS"):
            verify_log(log, keys, ["x.y"])


class TestKeys:
    def test_somebody_elses(self, log: Lines) -> None:
        other = OKPKey.generate_key("Ed25519").as_dict(private=False)
        report = verify_log(log, Verifier(read_public_keys(json.dumps(other))))
        assert (report.intact, report.breach) == (False, Breach.UNSIGNED)
        assert report.reason is not None
        assert "not among the public keys" in report.reason

    def test_the_same_key_id_on_another_key(self, log: Lines, cache: dict[str, Any]) -> None:
        kid = json.loads(cache["keys"])["keys"][0]["kid"]
        other = {**OKPKey.generate_key("Ed25519").as_dict(private=False), "kid": kid}
        report = verify_log(log, Verifier(read_public_keys(json.dumps({"keys": [other]}))))
        assert (report.intact, report.breach) == (False, Breach.UNSIGNED)

    def test_a_certificate_is_no_checkpoint(self, log: Lines, shared: Service, keys: Verifier) -> None:
        from app.audit.signing import CERTIFICATE, Signer

        token = Signer(shared.settings).sign(
            {"seq": 1, "hash": "a", "root": "b", "issued_at": "c"}, type=CERTIFICATE
        )
        with pytest.raises(SignatureProblem, match="no lethe-checkpoint"):
            verify_log(log, keys, [token])


class TestForm:
    def test_a_tenants_log_withholds_the_others(
        self, log: Lines, keys: Verifier, cache: dict[str, Any], shared: Service
    ) -> None:
        own = cache["own"]
        report = verify_log(own, keys)
        assert report.intact
        assert report.withheld == sum(entry["type"] == "withheld" for entry in entries(own)) > 5
        tenant = shared.principal(shared.auditor).tenant_id
        events = [entry for entry in entries(own) if entry["type"] == "event"]
        assert {entry["tenant_id"] for entry in events} == {tenant}
        assert shared.principal(shared.stranger).tenant_id not in "".join(own)

    def test_the_export_is_in_the_trail(self, log: Lines, shared: Service) -> None:
        event = [entry for entry in entries(log) if entry["type"] == "event"][-1]
        assert (event["kind"], event["actor"]) == ("audit.exported", shared.principal(shared.root).key_id)

    def test_empty_lines_do_not_matter(self, log: Lines, keys: Verifier) -> None:
        assert verify_log(["\n", *log, "\n"], keys).intact

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "empty"),
            ("not json", "line 1: not JSON"),
            ("[1]", "line 1: not a JSON object"),
            ('{"type": "event"}', "header"),
            ('{"type": "log", "version": 2}', "version 1"),
            ('{"type": "log", "version": 1}\n{"type": "news"}', "line 2: 'news'"),
            ('{"type": "log", "version": 1}\n{"type": "event", "seq": "1"}', "line 2: an event has"),
        ],
    )
    def test_not_a_log(self, keys: Verifier, text: str, match: str) -> None:
        with pytest.raises(NotALog, match=match):
            verify_log(text.splitlines(), keys)

    def test_a_line_without_end(self, keys: Verifier) -> None:
        with pytest.raises(NotALog, match="4,194,304"):
            verify_log(['{"a": "' + "x" * 5_000_000], keys)


def _size(token: str) -> int:
    import base64

    payload = token.split(".")[1]
    seq: int = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["seq"]
    return seq
