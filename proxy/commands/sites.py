"""The web sites: where they listen, and what is served there. Needs the packages of `trunkline[admin]`."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import structlog

from proxy.admin.sockets import bind
from proxy.settings import Settings, SettingsError
from proxy.settings.observability import address_of

if TYPE_CHECKING:
    from proxy.admin.server import Site
    from proxy.admin.view import ProcessView
    from proxy.admin.webhook import Tell
    from proxy.commands.observe import StoreView

__all__ = ["Doors", "serve"]

_MISSING: Final = "{} needs more packages: pip install 'trunkline[admin]' (missing: {})"
_MOST_WEBHOOKS: Final = 10_000
"""At a time: each waits for the application, and one that is turned away is a call that nobody answers."""
_PACKAGES: Final = ("fastapi", "jinja2", "prometheus_client", "standardwebhooks", "uvicorn")


class Doors:
    """The listening sockets of the sites, opened before anything else, and the token of the login.

    They may be opened by one process and served by another one, and by its successor.

    Raises SettingsError when an address is taken, or a package is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._token = secrets.token_urlsafe(24)
        for name, text in (("admin", settings.admin.listen), ("webhook", settings.webhook.listen)):
            if text is None:
                continue
            missing = [package for package in _PACKAGES if find_spec(package) is None]
            if missing:
                raise SettingsError([_MISSING.format(f"{name}.listen", ", ".join(missing))])
            try:
                self._sockets[name] = bind(*address_of(text))
            except OSError as error:
                self.close()
                reason = (error.strerror or str(error)).lower()
                raise SettingsError([f"{name}.listen: {text}: {reason}"]) from None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._sockets)

    def __contains__(self, name: str) -> bool:
        """Whether a site is served: `admin` or `webhook`."""
        return name in self._sockets

    def close(self) -> None:
        """Close them."""
        for listener in self._sockets.values():
            listener.close()

    def sites(self, settings: Settings, view: ProcessView, store: StoreView | None, tell: Tell) -> list[Site]:
        """What is served.

        Args:
            view: the running process, or all workers. store: the call store.
            tell: hears what comes to the webhook tap.
        """
        found: list[Site] = []
        if "admin" in self._sockets:
            from proxy.admin.app import AdminState, create_app
            from proxy.admin.server import Site

            given = settings.admin.token
            token = self._token if given is None else given.get_secret_value()
            state = AdminState(view, store, token, settings.admin.metrics_login)
            found.append(Site("admin", create_app(state), self._sockets["admin"]))
        if "webhook" in self._sockets:
            found.append(self._tap(settings, tell))
        return found

    def _tap(self, settings: Settings, tell: Tell) -> Site:
        from proxy.admin.server import Site
        from proxy.admin.webhook import TapSettings, Webhook, create_tap

        wanted, tls = settings.webhook, settings.tls
        assert wanted.secret is not None
        secret = wanted.secret.get_secret_value()
        tap = TapSettings(wanted.path, secret, wanted.forward_url, wanted.deadline_s, wanted.attempts)
        certificate, key = (tls.certificate, tls.key) if wanted.tls else (None, None)
        app = create_tap(Webhook(tap, tell))
        return Site("webhook", app, self._sockets["webhook"], certificate, key, _MOST_WEBHOOKS)

    def announce(self, settings: Settings) -> None:
        """Say on stderr where the dashboard is and by which token, where that was made up here."""
        listener = self._sockets.get("admin")
        if listener is not None and settings.admin.token is None:
            host, port = listener.getsockname()[:2]
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            sys.stderr.write(f"trunkline: dashboard at http://{place}/ with token {self._token}\n")
            sys.stderr.flush()


def serve(sites: list[Site], parent: int) -> None:
    """Serve sites in a process of their own, until SIGTERM or until the parent is gone.

    Args:
        parent: a file descriptor that can be read once the parent is gone.
    """
    from proxy.admin.server import WebThread

    async def wait() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        loop.add_reader(parent, over.set)
        await over.wait()
        loop.remove_reader(parent)

    web = WebThread(sites)
    web.start()
    structlog.get_logger(__name__).info("pages-started", pid=os.getpid())
    try:
        asyncio.run(wait())
    finally:
        web.stop()
