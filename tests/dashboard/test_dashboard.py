"""The dashboard over HTTP: what each page shows, to whom, how large, and that it loads nothing else."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import text

from app.dashboard.measured import SHOWN
from app.dashboard.rendering import CONTENT_SECURITY_POLICY, takes_gzip
from app.db.models import Remeasurement
from app.kit.ids import new_id
from app.removal.lifelong import Cell, HeatMap, LifelongService, Point
from tests.dashboard.browsing import Browser, browser, links
from tests.removal.active import activate_verified
from tests.service import Response, Service, png

MOST_BYTES = 150_000
PAGES = (
    "/dashboard", "/dashboard/requests", "/dashboard/requests/new", "/dashboard/queue",
    "/dashboard/playground", "/dashboard/verification", "/dashboard/registry", "/dashboard/policy",
    "/dashboard/audit",
    "/dashboard/requests/{id}", "/dashboard/requests/{id}/review", "/dashboard/requests/{id}/failures",
    "/dashboard/audit/events/{seq}", "/dashboard/login", "/dashboard/nowhere",
)  # fmt: skip


def transferred(visitor: Browser, page: Response) -> int:
    """Return the bytes of a page and everything it loads, uncompressed."""
    assets = [a for a in links(page.text) if a.startswith("/dashboard/static/")]
    assert assets
    return len(page.content) + sum(len(visitor.get(asset).content) for asset in assets)


class TestEveryPage:
    def test_is_small_and_loads_nothing_from_elsewhere(self, service: Service) -> None:
        request_id = activate_verified(service)
        service.get("/audit/checkpoint", service.auditor)
        visitor = browser(service, service.root)
        for path in PAGES:
            page = visitor.get(path.format(id=request_id, seq=1)) if path != PAGES[-2] else (
                browser(service).get(path)
            )  # fmt: skip
            assert page.status_code == (404 if path == PAGES[-1] else 200), (path, page.text)
            assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert page.headers["cache-control"] == "no-store"
            assert all(re.match(r"[/#]", address) and address[:2] != "//" for address in links(page.text)), (
                path
            )
            assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son\w+=|javascript:", page.text), path
            assert transferred(visitor, page) <= MOST_BYTES, (path, transferred(visitor, page))

    def test_policy_allows_nothing_inline_and_no_other_host(self) -> None:
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        assert "http" not in CONTENT_SECURITY_POLICY
        assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")

    def test_assets_load_nothing_and_may_be_kept(self, shared: Service) -> None:
        for name, kind in (
            ("style.css", "text/css"),
            ("lethe.js", "text/javascript"),
            ("mark.svg", "image/svg"),
        ):
            answer = shared.client.get(f"/dashboard/static/{name}")
            assert answer.headers["content-type"].startswith(kind)
            assert "immutable" in answer.headers["cache-control"]
            assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", answer.text)

    def test_assets_are_compressed_and_not_sent_twice(self, shared: Service) -> None:
        plain = shared.client.get("/dashboard/static/style.css", headers={"Accept-Encoding": "identity"})
        packed = shared.client.get("/dashboard/static/style.css", headers={"Accept-Encoding": "br, gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.text == plain.text
        assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
        for answer, coding in ((plain, "identity"), (packed, "gzip")):
            known = {"Accept-Encoding": coding, "If-None-Match": f'"other", {answer.headers["etag"]}'}
            again = shared.client.get("/dashboard/static/style.css", headers=known)
            assert (again.status_code, again.content) == (304, b"")
            assert "immutable" in again.headers["cache-control"]

    @pytest.mark.parametrize(
        ("accepted", "takes"),
        [
            ("gzip", True), ("gzip, deflate, br", True), ("GZIP;q=0.5", True), ("", False), ("br", False),
            ("gzip;q=0", False), ("gzip; q=0.000", False), ("*", False),
        ],
    )  # fmt: skip
    def test_who_takes_gzip(self, accepted: str, takes: bool) -> None:
        assert takes_gzip(accepted) is takes

    def test_pages_are_not_compressed(self, shared: Service) -> None:
        """A token and names beside text from the address: their length must tell nothing (BREACH)."""
        page = browser(shared, shared.root).get("/dashboard", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in page.headers

    def test_full_pages_are_small_too(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        """With more rows than a page shows, and a heat map and a curve as full as they get."""
        for i in range(30):
            service.file(f"Subject {i}")
        ids = [new_id("req") for _ in range(SHOWN)]
        full = HeatMap(
            "forget_quality", tuple(ids), tuple(range(1000, 1000 + SHOWN)),
            tuple(Cell(r, 1000 + i, 0.98765, 1234, True, False) for r in ids for i in range(SHOWN)),
        )  # fmt: skip
        points = [
            Point(1000 + i, 100 + i, metric, 0.0123456, 98765, 0.012, 0.013)
            for metric in ("forget_quality", "leak", "changed_answers") for i in range(24)
        ]  # fmt: skip
        monkeypatch.setattr(LifelongService, "heat_map", lambda *_, **__: full)
        monkeypatch.setattr(LifelongService, "curve", lambda *_, **__: points)
        visitor = browser(service, service.root)
        for path in [path for path in PAGES if "{" not in path and path not in PAGES[-2:]]:
            page = visitor.get(path)
            assert page.status_code == 200, path
            assert transferred(visitor, page) <= MOST_BYTES, (path, transferred(visitor, page))
            if path.endswith("verification"):
                assert page.text.count('class="cell h') == SHOWN * SHOWN

    @pytest.mark.parametrize("name", ["..%2fsession.py", "nothing.css", "style.py", "%2e%2e"])
    def test_only_assets(self, shared: Service, name: str) -> None:
        assert shared.client.get(f"/dashboard/static/{name}").status_code == 404


class TestFiling:
    def test_with_pictures(self, service: Service) -> None:
        owner = browser(service, service.owner)
        answer = owner.send(
            "/dashboard/requests", "/dashboard/requests/new", name="Elodie Brandt",
            alias_lines="E. Brandt\nElo", legal_ground="gdpr_art_17", fact_lines="birthplace: Paris",
            once="a" * 32, files=[("pictures", ("a.png", png(), "image/png"))], **{"class": "Personage"},
        )  # fmt: skip
        assert answer.status_code == 303, answer.text
        request_id = answer.headers["location"].rpartition("/")[2]
        view = service.get(f"/requests/{request_id}?subject=true", service.owner).json()
        assert view["pictures"] == 1
        assert view["subject"]["aliases"] == ["E. Brandt", "Elo"]
        assert view["subject"]["facts"] == {"birthplace": "Paris"}
        assert "1 kept, encrypted" in owner.get(answer.headers["location"]).text

    def test_sent_twice_files_one(self, service: Service) -> None:
        owner = browser(service, service.owner)
        fields = {"name": "Elodie Brandt", "class": "Personage", "once": "b" * 32}
        answers = [owner.send("/dashboard/requests", "/dashboard/requests/new", **fields) for _ in range(2)]
        assert answers[0].headers["location"] == answers[1].headers["location"]

    def test_what_cannot_be_accepted_comes_back_filled_in(self, service: Service) -> None:
        owner = browser(service, service.owner)
        fields = {"note": "Please <b>hurry</b>", "class": "Personage"}
        answer = owner.send("/dashboard/requests", "/dashboard/requests/new", **fields)
        assert answer.status_code == 422
        assert "neither a name nor a picture" in answer.text
        assert "Please &lt;b&gt;hurry&lt;/b&gt;" in answer.text


class TestDeciding:
    def test_approve(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        operator = browser(manual, manual.operator)
        assert "Approve" in operator.get(f"/dashboard/requests/{request_id}").text
        answer = operator.send(f"/dashboard/requests/{request_id}/approve", reason="fine")
        assert answer.status_code == 303
        assert manual.status(request_id)["state"] == "queued"

    def test_reject_says_why(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        operator = browser(manual, manual.operator)
        operator.send(f"/dashboard/requests/{request_id}/reject", reason="no", reason_code="no_match")
        status = manual.status(request_id)
        assert (status["state"], status["reason_code"], status["reason"]) == ("rejected", "no_match", "no")

    def test_reject_without_a_code(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        answer = browser(manual, manual.operator).send(
            f"/dashboard/requests/{request_id}/reject", reason="no"
        )
        assert answer.status_code == 422
        assert "reason_code" in answer.text

    def test_owners_withdraw_and_do_not_approve(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        owner = browser(manual, manual.owner)
        page = owner.get(f"/dashboard/requests/{request_id}").text
        assert "Approve" not in page
        assert owner.send(f"/dashboard/requests/{request_id}/approve").status_code == 403
        owner.send(f"/dashboard/requests/{request_id}/cancel")
        assert manual.status(request_id)["state"] == "cancelled"

    def test_what_is_not_possible_is_explained(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        answer = browser(manual, manual.operator).send(f"/dashboard/requests/{request_id}/retry")
        assert answer.status_code == 409
        assert "is not possible while the request is `in_review`" in answer.text
        assert answer.headers["content-type"].startswith("text/html")

    def test_rollback_is_for_root(self, service: Service) -> None:
        activate_verified(service)
        newest = service.get("/experts", service.root).json()["generation"]
        form = {"generation": str(newest)}
        refused = browser(service, service.operator).send("/dashboard/registry/rollback", **form)
        assert refused.status_code == 403
        done = browser(service, service.root).send("/dashboard/registry/rollback", **form)
        assert done.status_code == 303
        assert service.get("/experts", service.root).json()["generation"] == newest + 1


class TestFollowing:
    def test_live_part_has_stages_and_log(self, service: Service) -> None:
        request_id = service.file()["id"]
        lease = service.work_until(request_id, "train")
        with service.removal() as removal:
            removal.progress(request_id, stage="train", percent=50, message="step 5 of 10", token=lease.token)
        part = browser(service, service.owner).get(f"/dashboard/requests/{request_id}/live").text
        assert "<html" not in part
        assert "data-following" in part
        assert re.search(r'class="done"><b>prepare', part)
        assert re.search(r'class="current" aria-current="step"><b>train', part)
        assert "step 5 of 10" in part
        lease.release()

    def test_it_stops_when_there_is_nothing_to_wait_for(self, manual: Service) -> None:
        request_id = manual.file()["id"]
        part = browser(manual, manual.owner).get(f"/dashboard/requests/{request_id}/live").text
        assert "data-following" not in part
        assert "Waiting for an operator" in part

    def test_a_script_whose_session_is_over_is_told(self, shared: Service) -> None:
        answer = browser(shared).get("/dashboard/requests", headers={"X-Lethe-Fragment": "1"})
        assert answer.status_code == 401

    def test_certificate(self, service: Service) -> None:
        request_id = activate_verified(service)
        answer = browser(service, service.owner).get(f"/dashboard/requests/{request_id}/certificate")
        assert answer.text.count(".") == 2
        assert answer.headers["content-disposition"].startswith("attachment")


class TestFigures:
    def test_empty_states_say_what_is_missing(self, service: Service) -> None:
        page = browser(service, service.root).get("/dashboard/verification").text
        assert "the first row appears when a request has been verified and published" in page
        assert "No model is loaded" in page
        assert "<svg" not in page

    def test_heat_map_and_curve_are_drawn_from_rows(self, service: Service) -> None:
        first = activate_verified(service)
        activate_verified(service, "Somebody Else", expert_id="exp_b")
        newest = service.get("/experts", service.root).json()["generation"]
        with service.sessions.begin() as session:
            for metric, value in (("forget_quality", 0.75), ("leak", 0.125)):
                session.add(
                    Remeasurement(
                        id=new_id("rms"), request_id=first, generation=newest, metric=metric, value=value,
                        n=8, passed=False,
                    )
                )  # fmt: skip
        page = browser(service, service.root).get("/dashboard/verification").text
        assert page.count('class="cell h0"') == 2
        assert page.count('class="cell h4"') == 1
        assert "2 experts, generation" in page
        other = browser(service, service.stranger).get("/dashboard/verification").text
        assert first not in other
        assert 'class="cell' not in other


class TestPolicy:
    def test_root_changes_it_and_reads_what_was_before(self, service: Service) -> None:
        service.file()
        root = browser(service, service.root)
        form = {"based_on": "0", "reason": "Stricter <b>now</b>", "max_leak": "", "min_gate_tpr": "0.99"}
        answer = root.send("/dashboard/policy", "/dashboard/policy", **form)
        assert answer.status_code == 303, answer.text
        page = root.get("/dashboard/policy").text
        assert "version 1, since" in page
        assert "min gate tpr 0.99" in page
        assert "Stricter &lt;b&gt;now&lt;/b&gt;" in page
        assert "1 by the settings" in page
        assert "They keep their rules." in page

    def test_what_cannot_be_accepted_comes_back_filled_in(self, service: Service) -> None:
        root = browser(service, service.root)
        form = {"based_on": "0", "reason": "Why not", "max_leak": "much", "min_gate_tpr": "0.99"}
        answer = root.send("/dashboard/policy", "/dashboard/policy", **form)
        assert answer.status_code == 422
        assert "rules.max_leak" in answer.text
        assert (
            'name="max_leak" inputmode="decimal" maxlength="20" autocomplete="off" value="much"'
            in answer.text
        )
        assert "Why not" in answer.text

    def test_changed_by_somebody_else_meanwhile(self, service: Service) -> None:
        root = browser(service, service.root)
        form = {"based_on": "0", "reason": "Why not", "max_leak": "0.1"}
        assert root.send("/dashboard/policy", "/dashboard/policy", **form).status_code == 303
        answer = root.send("/dashboard/policy", "/dashboard/policy", **form | {"max_leak": "0.2"})
        assert answer.status_code == 409
        assert 'name="based_on" value="1"' in answer.text
        assert 'value="0.2"' in answer.text

    def test_other_tenants_read_it(self, service: Service) -> None:
        page = browser(service, service.operator).get("/dashboard/policy").text
        assert "Put in force" not in page
        assert "Operators of the tenant" in page


class TestAudit:
    def test_filter_and_pages(self, service: Service) -> None:
        request_id = service.file()["id"]
        auditor = browser(service, service.auditor)
        page = auditor.get(f"/dashboard/audit?about={request_id}&kind=request.app").text
        assert "request.approve" in page
        assert "request.receive" not in page

    def test_a_broken_chain_shows(self, service: Service) -> None:
        service.file()
        auditor = browser(service, service.auditor)
        assert "The chain is unbroken." in auditor.send("/dashboard/audit/verify").text
        with service.sessions.begin() as session:
            session.execute(text("UPDATE audit_events SET actor = 'nobody' WHERE seq = 2"))
        found = auditor.send("/dashboard/audit/verify").text
        assert "The chain is broken: edited." in found
        assert "Event 2" in found

    def test_export(self, service: Service) -> None:
        service.file()
        answer = browser(service, service.auditor).get("/dashboard/audit/export")
        assert answer.headers["content-type"].startswith("application/jsonl")
        assert '"exported_at"' in answer.text.splitlines()[0]


def test_names_are_escaped(service: Service) -> None:
    request_id = service.file("<script>alert(1)</script> Brandt")["id"]
    page = browser(service, service.operator).get(f"/dashboard/requests/{request_id}/review").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
