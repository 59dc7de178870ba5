"""The web application: pages, the JSON API, metrics and health. Everything in it only reads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles

from proxy import __version__
from proxy.admin import charts, metrics, pages
from proxy.admin.login import COOKIE, Login
from proxy.admin.view import CallStore, ProcessView, StoreUnavailable

__all__ = ["AdminState", "create_app"]

_HERE: Final = Path(__file__).parent
_OPEN_PATHS: Final = frozenset(("/healthz", "/readyz", "/login"))
_MAX_FORM_BYTES: Final = 4096
_MAX_ROWS: Final = 500
_RANGES: Final = {"1h": 3600.0, "6h": 6 * 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILTERS: Final = ("number", "outcome", "cause", "target", "rules", "rule", "tag", "source")

_Next = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class AdminState:
    """What the application shows.

    Attributes:
        view: the running process, or all workers. store: the call store, or None.
        token: the secret of the login. metrics_login: whether metrics need it too.
    """

    view: ProcessView
    store: CallStore | None
    token: str
    metrics_login: bool = False


def create_app(state: AdminState) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        # Pages are made one at a time: many at once would be no quicker, and take the time of the calls.
        to_thread.current_default_thread_limiter().total_tokens = 1
        yield

    app = FastAPI(
        title="Trunkline", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=life
    )
    login = Login(state.token)
    _guard(app, state, login)
    _add_health(app, state)
    _add_api(app, state)
    _add_pages(app, state, login)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    return app


def _guard(app: FastAPI, state: AdminState, login: Login) -> None:
    """Nothing but health, the login and its looks is shown to strangers; every answer says what browsers may do."""

    @app.middleware("http")
    async def check(request: Request, call_next: _Next) -> Response:
        path = request.url.path
        free = path in _OPEN_PATHS or path.startswith("/static/") or (path == "/metrics" and not state.metrics_login)
        if free or login.allows(request.cookies.get(COOKIE), request.headers.get("authorization")):
            response = await call_next(request)
        elif path.startswith("/api/") or path == "/metrics":
            response = _json({"error": "login needed: Authorization: Bearer <token>"}, 401)
            response.headers["WWW-Authenticate"] = "Bearer"
        else:
            response = RedirectResponse("/login", 303)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-cache" if path.startswith("/static/") else "no-store")
        return response

    @app.exception_handler(StoreUnavailable)
    async def no_store(request: Request, error: Exception) -> Response:
        return _json({"error": f"call store: {error}"}, 503)


def _json(value: Any, status: int = 200) -> Response:
    data = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(data, status, media_type="application/json")


def _add_health(app: FastAPI, state: AdminState) -> None:
    view = state.view

    @app.get("/healthz")
    async def healthz() -> Response:
        alive = view.alive()
        return _json({"alive": alive, "lag_s": round(view.lag_s(), 6)}, 200 if alive else 503)

    @app.get("/readyz")
    async def readyz() -> Response:
        draining, listening = view.draining(), bool(view.listeners())
        ready = listening and not draining and view.alive()
        return _json({"ready": ready, "draining": draining, "listening": listening}, 200 if ready else 503)

    @app.get("/metrics")
    def metrics_text() -> Response:
        return Response(metrics.render(view), media_type=metrics.CONTENT_TYPE)


def _wanted(request: Request) -> dict[str, Any]:
    """The filter that the query string asks for."""
    given = request.query_params
    wanted: dict[str, Any] = {name: given[name].strip() for name in _FILTERS if given.get(name, "").strip()}
    for name, kind in (("status", int), ("since", float), ("until", float)):
        text = given.get(name, "").strip()
        if text:
            try:
                wanted[name] = kind(text)
            except ValueError:
                raise HTTPException(422, f"{name} must be a number") from None
    span = _RANGES.get(given.get("range", ""))
    if span is not None:
        wanted["since"] = time.time() - span
    return wanted


def _store(state: AdminState) -> CallStore:
    if state.store is None:
        raise StoreUnavailable("there is none: it is switched off")
    return state.store


def _live(state: AdminState) -> dict[str, Any]:
    """The numbers of this moment, which need no store."""
    view = state.view
    recent = view.counts().recent(view.now())
    return {
        "version": __version__,
        "calls_in_progress": view.calls_in_progress(),
        "answered": recent.answered,
        "failed": recent.failed,
        "cancelled": recent.cancelled,
        "success_rate": recent.success_rate,
        "draining": view.draining(),
        "lag_s": view.lag_s(),
        "targets": dict(view.targets()),
        "rules": dict(view.rules()),
        "listeners": list(view.listeners()),
        "tables": dict(view.tables()),
        "workers": [worker._asdict() for worker in view.workers()],
        "store": view.store_state(),
    }


def _overview(state: AdminState, span: str) -> dict[str, Any]:
    """The live numbers, and those of the store, or why it has none."""
    seconds = _RANGES.get(span, 3600.0)
    shown: dict[str, Any] = {
        "live": _live(state),
        "range": span if span in _RANGES else "1h",
        "store": None,
        "store_error": "",
    }
    now = time.time()
    step = max(60.0, seconds / 60)
    try:
        shown["store"] = _store(state).overview(now - seconds, step)
    except StoreUnavailable as error:
        shown["store_error"] = str(error)
    shown["since"], shown["until"], shown["step_s"] = now - seconds, now, step
    return shown


def _find(state: AdminState, key: int) -> Mapping[str, Any]:
    call = _store(state).call(key)
    if call is None:
        raise HTTPException(404, "there is no such call")
    return call


def _rows(state: AdminState, request: Request, limit: int, before: int | None) -> list[Mapping[str, Any]]:
    store, text = _store(state), request.query_params.get("q", "").strip()
    if text:
        return store.search(text, limit)
    return store.calls(_wanted(request), limit, before)


def _add_api(app: FastAPI, state: AdminState) -> None:
    """Read-only JSON. Endpoints that read the store run in a thread of their own."""

    @app.get("/api/live")
    async def live() -> Response:
        return _json(_live(state))

    @app.get("/api/overview")
    def overview(span: str = Query("1h", alias="range")) -> Response:
        return _json(_overview(state, span))

    @app.get("/api/calls")
    def calls(request: Request, limit: int = Query(50, ge=1, le=_MAX_ROWS), before: int | None = None) -> Response:
        rows = _rows(state, request, limit, before)
        following = rows[-1]["key"] if len(rows) == limit and "q" not in request.query_params else None
        # A key has more digits than a number of JavaScript holds.
        return _json(
            {"calls": [{**row, "key": str(row["key"])} for row in rows], "before": following and str(following)}
        )

    @app.get("/api/calls/{key}")
    def call(key: int) -> Response:
        return _json(_find(state, key))

    @app.get("/api/diagnosis")
    def diagnosis(since: float | None = None, until: float | None = None) -> Response:
        start = time.time() - _RANGES["24h"] if since is None else since
        return _json({"since": start, "until": until, "report": _store(state).diagnosis(start, until)})


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(pages.FILTERS)
    environment.globals.update(version=__version__, ranges=list(_RANGES))
    return environment


def _add_pages(app: FastAPI, state: AdminState, login: Login) -> None:
    templates = _templates()

    def page(name: str, status: int = 200, **values: Any) -> Response:
        text = templates.get_template(name).render(draining=state.view.draining(), **values)
        return Response(text, status, media_type="text/html")

    @app.exception_handler(StarletteHTTPException)
    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        if request.url.path.startswith("/api/"):
            return _json({"error": error.detail}, error.status_code)
        return page("error.html", error.status_code, title=f"{error.status_code}", text=error.detail, here="")

    @app.get("/login")
    async def login_page() -> Response:
        return page("login.html", problem="", here="login")

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        form = b""
        async for chunk in request.stream():
            form += chunk
            if len(form) > _MAX_FORM_BYTES:
                raise HTTPException(413, "too much for a token")
        if login.locked():
            return page("login.html", 429, problem="Too many wrong tokens: wait a minute.", here="login")
        session = login.session(form)
        if session is None:
            return page("login.html", 403, problem="This is not the token.", here="login")
        response = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, session, path="/", httponly=True, samesite="strict", secure=secure)
        return response

    @app.post("/logout")
    async def log_out() -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    @app.get("/")
    def overview(request: Request, span: str = Query("1h", alias="range"), part: bool = False) -> Response:
        shown = _overview(state, span)
        return page("live.html" if part else "overview.html", here="overview", charts=charts, **shown)

    @app.get("/calls")
    def calls(request: Request, before: int | None = None) -> Response:
        given = {name: value for name, value in request.query_params.items() if value}
        try:
            rows, problem = _rows(state, request, 50, before), ""
        except StoreUnavailable as error:
            rows, problem = [], f"Call store: {error}"
        except HTTPException as error:
            rows, problem = [], error.detail
        more = rows[-1]["key"] if len(rows) == 50 and "q" not in given else None
        return page("calls.html", here="calls", rows=rows, given=given, problem=problem, more=more)

    @app.get("/calls/{key}")
    def call(key: int) -> Response:
        try:
            found = _find(state, key)
        except StoreUnavailable as error:
            raise HTTPException(503, f"call store: {error}") from None
        return page("call.html", here="calls", **pages.call_page(found))

    @app.get("/diagnosis")
    def diagnosis(span: str = Query("24h", alias="range")) -> Response:
        span = span if span in _RANGES else "24h"
        try:
            report, problem = _store(state).diagnosis(time.time() - _RANGES[span], None), ""
        except StoreUnavailable as error:
            report, problem = "", f"Call store: {error}"
        return page("diagnosis.html", here="diagnosis", report=report, problem=problem, range=span)
