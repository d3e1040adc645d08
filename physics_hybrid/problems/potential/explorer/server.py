"""The page on the loopback address: who may ask, and what is answered.

    GET  /?key=KEY          the page, for whoever has the key of this start
    GET  /NAME              its style and scripts
    POST /about /field /bound /export    JSON in, JSON or a file out, with the key

Only this machine can connect, a request must name this machine as its host (a page elsewhere whose
name was made to lead here does not; DNS rebinding), and what is asked must carry the key, which is
new with each start and only stands in the address that is printed. No request names a file.
"""

from __future__ import annotations

import errno
import hmac
import json
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from physics_hybrid.problems.potential.explorer.answers import Explorer
from physics_hybrid.problems.potential.explorer.scene import Refused

#: Addresses and names of this machine alone.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Header that carries the key.
KEY = "X-Explorer-Key"
#: Bytes that a scene takes at most.
MOST = 1 << 16
PAGE = Path(__file__).parent / "page"
#: What may be fetched, and its type.
FILES = {
    "explorer.css": "text/css",
    "explorer.js": "text/javascript",
    "asking.js": "text/javascript",
    "current_lines.js": "text/javascript",
    "figure.js": "text/javascript",
    "picture.js": "text/javascript",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def check_host(host: str) -> None:
    """Raises ValueError for an address that others can reach."""
    if host not in LOOPBACK:
        raise ValueError(
            f"host={host} is refused: the page has no passwords and is for this machine alone"
            f" ({', '.join(LOOPBACK)}). From elsewhere, forward the port:"
            " ssh -L 8765:127.0.0.1:8765 THIS_MACHINE, and open the address there"
        )


class Page:
    """The WSGI application: an explorer behind its key."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.key = secrets.token_urlsafe(24)
        self._answers: dict[str, Callable[[object], Any]] = {
            "/about": lambda _: explorer.about(),
            "/field": explorer.field,
            "/bound": explorer.bound,
            "/export": explorer.export,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = MOST
        response = self.answer(request)
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def answer(self, request: Request) -> Response:
        """What a request gets."""
        said = _stranger(request)
        if said:
            return _refusal(403, said)
        if request.path in self._answers:
            return self._asked(request)
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "Only GET is answered here.")
        name = request.path[1:]
        if name == "":
            return self._page(request)
        if name not in FILES:
            return _refusal(404, "There is nothing of that name.")
        return Response((PAGE / name).read_bytes(), content_type=f"{FILES[name]}; charset=utf-8")

    def _page(self, request: Request) -> Response:
        if not self._knows(request.args.get("key", "")):
            return _refusal(
                403,
                "This page needs the key of this start: open the whole address that the explorer"
                " has printed.",
            )
        return Response((PAGE / "index.html").read_bytes(), content_type="text/html; charset=utf-8")

    def _knows(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self.key.encode())

    def _asked(self, request: Request) -> Response:
        """JSON in; JSON, or a file, out. What is wrong with a scene is 422, and said."""
        if request.method != "POST":
            return _refusal(405, "Only POST is answered here.")
        if not self._knows(request.headers.get(KEY, "")):
            return _refusal(
                403, "The explorer was started anew: open the address that it has printed now."
            )
        try:
            answer = self._answers[request.path](_message(request))
        except RequestEntityTooLarge:
            return _refusal(413, f"A scene takes at most {MOST} bytes.")
        except Refused as refused:
            return _json(422, _said(refused))
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            return _json(422, {"error": str(error) or type(error).__name__})
        except Exception:
            traceback.print_exc()
            return _json(500, {"error": "The explorer has failed; its terminal shows where."})
        if isinstance(answer, tuple):
            return _file(*answer)
        return _json(200, answer)


def _stranger(request: Request) -> str:
    """Why a request is none of this machine's own page; '' where it is."""
    host = request.headers.get("Host", "")
    if _hostname(host) not in LOOPBACK:
        return (
            f"Requests for the host {host!r} are refused: this page answers to"
            f" {', '.join(LOOPBACK)} only, so that no other site can reach it under its own name."
        )
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        return f"Requests of another page ({origin}) are refused."
    return ""


def _hostname(host: str) -> str | None:
    """The name in a Host header; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        plain = not (parts.path or parts.query or parts.fragment or parts.username)
        return parts.hostname if plain and parts.port != 0 else None
    except ValueError:
        return None


def _message(request: Request) -> object:
    """The JSON that a request holds. Raises Refused for what is none."""
    if request.mimetype != "application/json":
        raise Refused("a scene must be sent as application/json")
    try:
        return json.loads(request.get_data(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the scene is not JSON: {error}") from error


def _no_number(word: str) -> float:
    """NaN and infinity are not JSON, though Python reads them."""
    raise ValueError(f"{word} is no number")


def _said(refused: Refused) -> dict[str, Any]:
    near = refused.nearest
    return {
        "error": str(refused),
        "nearest": None if near is None else list(near),
        "electrode": refused.electrode,
    }


def _refusal(status: int, said: str) -> Response:
    return Response(f"{said}\n", status=status, content_type="text/plain; charset=utf-8")


def _json(status: int, answer: dict[str, Any]) -> Response:
    text = json.dumps(answer, allow_nan=False, separators=(",", ":"))
    return Response(text, status=status, content_type="application/json")


def _file(name: str, content: bytes) -> Response:
    response = Response(content, content_type="application/octet-stream")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


class _Quiet(WSGIRequestHandler):
    """Without a line in the terminal for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def listening(page: Page, host: str, port: int) -> BaseWSGIServer:
    """A server that holds its port; `serve_forever` answers. port : 0 for any that is free.

    Raises
    ------
    ValueError
        An address that others can reach; a port that is none, or in use.
    """
    check_host(host)
    if not 0 <= port <= 65535:
        raise ValueError(f"port must lie in 0 .. 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        if sys.platform != "win32":  # there it would share a port that is in use
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(
                    f"port {port} of {host} is in use, perhaps by another explorer: end that, or"
                    " take --port 0, any that is free"
                ) from error
            raise ValueError(f"port {port} of {host} cannot be had: {error.strerror}") from error
        taken.listen(32)
        server = make_server(
            host, port, page, threaded=True, request_handler=_Quiet, fd=taken.fileno()
        )
    return server


def address(server: BaseWSGIServer, host: str, page: Page) -> str:
    """What to open in a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{server.server_address[1]}/?key={page.key}"


def serve(explorer: Explorer, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until Ctrl-C. ready : is told the address.

    Raises
    ------
    ValueError
        As `listening`.
    """
    page = Page(explorer)
    server = listening(page, host, port)
    try:
        ready(address(server, host, page))
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
