"""The web application by HTTP: who may read what, and what is said."""

import json
import re
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from proxy.admin.login import Login
from tests.admin.conftest import TOKEN, Dashboard

PAGES = ("/", "/calls", "/diagnosis", "/?part=1")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def ask(url: str, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    place = urlsplit(url)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response: HTTPResponse = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)


def read(dashboard: Dashboard, path: str) -> Answer:
    return ask(dashboard.url, path, Authorization=f"Bearer {TOKEN}")


@pytest.mark.parametrize("path", [*PAGES, "/calls/1", "/nothing"])
def test_pages_want_a_login(dashboard: Dashboard, path: str) -> None:
    answer = ask(dashboard.url, path)
    assert (answer.status, answer.headers["location"], answer.text) == (303, "/login", "")


@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer"])
def test_the_api_wants_the_token(dashboard: Dashboard, given: str) -> None:
    headers = {"Authorization": given} if given else {}
    assert ask(dashboard.url, "/api/live", **headers).status == 401


def test_login_gives_a_session(dashboard: Dashboard) -> None:
    refused = ask(dashboard.url, "/login", "POST", "token=wrong")
    assert refused.status == 403
    assert "set-cookie" not in refused.headers
    answer = ask(dashboard.url, "/login", "POST", f"token={TOKEN}")
    cookie = answer.headers["set-cookie"]
    assert answer.status == 303
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    session = cookie.partition(";")[0]
    assert ask(dashboard.url, "/", Cookie=session).status == 200
    assert ask(dashboard.url, "/", Cookie=session[:-1] + ("0" if session[-1] != "0" else "1")).status == 303


def test_sessions_end_and_wrong_tokens_are_limited() -> None:
    now = [1000.0]
    login = Login("0123456789abcdef", lambda: now[0])
    session = login.session(b"token=0123456789abcdef")
    assert session is not None
    assert login.allows(session, None)
    later = f"{int(session.partition('.')[0]) + 1}.{session.partition('.')[2]}"
    assert not login.allows(later, None)
    now[0] += 12 * 3600 + 1
    assert not login.allows(session, None)
    for _ in range(10):
        assert login.session(b"token=guess") is None
    assert login.locked()
    assert not login.allows(None, "Bearer 0123456789abcdef")
    now[0] += 61
    assert login.allows(None, "Bearer 0123456789abcdef")


@pytest.mark.parametrize("path", [*PAGES, "/login", "/healthz", "/static/app.css", "/nothing"])
def test_every_answer_says_what_browsers_may_do(dashboard: Dashboard, path: str) -> None:
    answer = read(dashboard, path)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"https?://(?!www\.w3\.org/)", answer.text)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/calls", "/api/calls", "/api/live", "/metrics"])
def test_nothing_can_be_changed(dashboard: Dashboard, method: str, path: str) -> None:
    assert ask(dashboard.url, path, method, "x", Authorization=f"Bearer {TOKEN}").status == 405


def test_health_and_readiness(dashboard: Dashboard) -> None:
    process = dashboard.process
    assert ask(dashboard.url, "/healthz").json()["alive"] is True
    assert ask(dashboard.url, "/readyz").status == 200
    try:
        process.is_draining = True
        draining = ask(dashboard.url, "/readyz")
        assert (draining.status, draining.json()["draining"]) == (503, True)
        assert ask(dashboard.url, "/healthz").status == 200
        process.is_draining, process.heard = False, []
        assert ask(dashboard.url, "/readyz").status == 503
        process.heard, process.is_alive = ["udp:127.0.0.1:5060"], False
        assert (ask(dashboard.url, "/healthz").status, ask(dashboard.url, "/readyz").status) == (503, 503)
    finally:
        process.is_draining, process.is_alive, process.heard = False, True, ["udp:127.0.0.1:5060"]


def test_overview_of_the_hour(dashboard: Dashboard) -> None:
    shown = read(dashboard, "/api/overview?range=1h").json()
    totals = shown["store"]["totals"]
    assert totals["answered"] + totals["failed"] + totals["cancelled"] == 250
    assert sum(point["count"] for point in shown["store"]["calls"]) == 250
    assert shown["live"]["calls_in_progress"] == 3
    assert shown["store"]["targets"][0]["target"] == "openai"


def test_calls_by_page_and_filter(dashboard: Dashboard) -> None:
    found: list[str] = []
    path = "/api/calls?limit=100"
    for _ in range(3):
        page = read(dashboard, path).json()
        found += [row["key"] for row in page["calls"]]
        path = f"/api/calls?limit=100&before={page['before']}"
    assert len(set(found)) == len(found) == 250
    failed = read(dashboard, "/api/calls?outcome=failed&limit=500").json()["calls"]
    assert {row["outcome"] for row in failed} == {"failed"}
    sid = failed[0]["call_sid"]
    assert [row["id"] for row in read(dashboard, f"/api/calls?q={sid}").json()["calls"]] == [failed[0]["id"]]
    assert read(dashboard, "/api/calls?status=x").status == 422
    assert read(dashboard, "/api/calls?before=x").status == 422


def test_a_call_with_its_changes(dashboard: Dashboard) -> None:
    row = read(dashboard, "/api/calls?outcome=answered&limit=1").json()["calls"][0]
    page = read(dashboard, f"/calls/{row['key']}").text
    assert "rule:twilio-openai/call-id-header" in page
    assert "is not on record" not in page
    assert "found it" not in page
    assert page.count('class="rung') == page.count('<details class="message"')
    for path in ("/calls/1", "/api/calls/1"):
        assert read(dashboard, path).status == 404


def test_diagnosis_names_the_hidden_causes(dashboard: Dashboard) -> None:
    report = read(dashboard, "/diagnosis?range=1h").text
    assert "X-Tenant" in report
    assert "203.0.113.22" in report


def test_input_is_escaped(dashboard: Dashboard) -> None:
    hostile = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
    for path in (f"/calls?q={hostile}", f"/calls?rule={hostile}", f"/?range={hostile}", f"/{hostile}"):
        assert "<script>alert" not in read(dashboard, path).text
    answer = ask(dashboard.url, "/login", "POST", f"token={hostile}")
    assert "<script>alert" not in answer.text


def test_without_a_store_the_live_numbers_stay(dashboard: Dashboard) -> None:
    dashboard.store.close()
    path, moved = dashboard.path, dashboard.path.with_name("moved.db")
    path.rename(moved)
    try:
        assert read(dashboard, "/api/calls").status == 503
        overview = read(dashboard, "/")
        assert overview.status == 200
        assert "no call store at" in overview.text
        assert "Calls in progress" in overview.text
        assert read(dashboard, "/calls").status == 200
        assert read(dashboard, "/diagnosis").status == 200
    finally:
        moved.rename(path)
    assert read(dashboard, "/api/calls").status == 200
