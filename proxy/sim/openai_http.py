"""The HTTP API of the simulated OpenAI side: accept, reject, hangup, refer; and its own record under /sim/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from proxy.sim.endpoint import bracketed
from proxy.sip.errors import SipError
from proxy.sip.uri import parse_uri

if TYPE_CHECKING:
    from proxy.sim.openai import OpenAiSim

__all__ = ["HttpApi"]

_CALLS = "/v1/realtime/calls/{call_id}"
_DEFAULT_REJECTION = 603


class HttpApi:
    """Serves one simulator.

    `POST /v1/realtime/calls/{call_id}/accept|reject|hangup|refer` as OpenAI has them. `GET /sim/report`,
    `GET /sim/calls` and `POST /sim/reset` are the simulator's own.
    """

    def __init__(self, sim: OpenAiSim) -> None:
        self._sim = sim
        self._runner: web.AppRunner | None = None

    async def start(self, address: str) -> str:
        """Listen at `address:port`, and return the base URL. Raises OSError, or ValueError for another form."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{address!r} is not of the form address:port, for example 127.0.0.1:8080")
        app = web.Application(middlewares=[self._check_key])
        app.router.add_post(_CALLS + "/accept", self._accept)
        app.router.add_post(_CALLS + "/reject", self._reject)
        app.router.add_post(_CALLS + "/hangup", self._hang_up)
        app.router.add_post(_CALLS + "/refer", self._refer)
        app.router.add_get("/sim/report", self._report)
        app.router.add_get("/sim/calls", self._records)
        app.router.add_post("/sim/reset", self._reset)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, int(port)).start()
        except OSError as error:
            raise OSError(error.errno, f"http:{address}: {error.strerror}") from error
        bound = self._runner.addresses[0][1]
        return f"http://{bracketed(host)}:{bound}"

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        key = self._sim.config.api_key
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            return _error(401, "invalid_api_key", "Incorrect API key provided.")
        response: web.StreamResponse = await handler(request)
        return response

    async def _accept(self, request: web.Request) -> web.Response:
        """An accept whose body is no session gets 200 all the same, and the INVITE ends in 400, as the real one did."""
        body = await request.read()
        call = self._sim.find(request.match_info["call_id"])
        if call is None or not call.accept(valid=not body or _is_session(body)):
            return _not_found(request)
        return web.Response()

    async def _reject(self, request: web.Request) -> web.Response:
        values = await _json(request)
        status = values.get("status_code", _DEFAULT_REJECTION)
        if not isinstance(status, int) or not 300 <= status <= 699:
            return _error(400, "invalid_value", "status_code must be a SIP status from 300 to 699.")
        call = self._sim.find(request.match_info["call_id"])
        return web.Response() if call is not None and call.reject(status) else _not_found(request)

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = self._sim.find(request.match_info["call_id"])
        return web.Response() if call is not None and call.hang_up() else _not_found(request)

    async def _refer(self, request: web.Request) -> web.Response:
        values = await _json(request)
        target = values.get("target_uri")
        try:
            scheme = parse_uri(target).scheme if isinstance(target, str) else ""
        except SipError:
            scheme = ""
        if not isinstance(target, str) or scheme not in ("sip", "sips", "tel"):
            return _error(400, "invalid_value", "target_uri must be a sip: or tel: URI.")
        call = self._sim.find(request.match_info["call_id"])
        return web.Response() if call is not None and call.refer(target) else _not_found(request)

    async def _report(self, request: web.Request) -> web.Response:
        return _json_response(self._sim.report())

    async def _records(self, request: web.Request) -> web.Response:
        return _json_response([record.to_dict() for record in self._sim.records])

    async def _reset(self, request: web.Request) -> web.Response:
        self._sim.reset()
        return web.Response()


def _is_session(body: bytes) -> bool:
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(values, dict) and values.get("type") == "realtime"


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        values = orjson.loads(await request.read() or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return values if isinstance(values, dict) else {}


def _json_response(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def _not_found(request: web.Request) -> web.Response:
    call_id = request.match_info["call_id"]
    return _error(404, "call_id_not_found", f"No session found for call_id '{call_id}'.")
