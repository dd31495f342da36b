"""The page's HTTP server, on a thread of the node."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from qcnode.config import Destination, Web
from qcnode.errors import ConfigError
from qcnode.ledger.store import Store
from qcnode.web.app import create_app
from qcnode.web.proxies import behind_proxies
from qcnode.web.running import Running


class WebServer:
    """Serves the page from start() to stop(). Without accounts it refuses any address but loopback."""

    def __init__(
        self,
        settings: Web,
        store: Store,
        folder: Path,
        destinations: Sequence[Destination] = (),
        running: Running | None = None,
    ) -> None:
        open_to_all = settings.insecure or _is_loopback(settings.host)
        if not open_to_all and not settings.trusted_proxies and not store.people.any():
            raise ConfigError(
                f"[web] host {settings.host!r} is not loopback, and there are no accounts; "
                "add one with `qcnode user add NAME`, or set it to 127.0.0.1."
            )
        page = create_app(store, folder, settings, destinations, open_to_all=open_to_all, running=running)
        self._settings, self._app = settings, page
        config = uvicorn.Config(
            behind_proxies(page, settings), log_level="warning", access_log=False, lifespan="off", proxy_headers=False
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """Where the page is, once started."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def start(self) -> None:
        """Listen. Raises ConfigError when the port is taken."""
        host, port = self._settings.host, self._settings.port
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise ConfigError(
                f"The page cannot listen on {host}:{port} ({error.strerror}); change [web] port."
            ) from error
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="web")
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests at hand and close."""
        self._app.state.ending.set()
        self._server.should_exit = True
        self._app.state.aside.stop()
        self._thread.join()
        self._socket.close()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
