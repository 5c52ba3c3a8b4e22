"""A loopback server that speaks as much of the Hugging Face Hub as datasets and models are loaded with."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"


def routes(
    sets: dict[str, dict[str, bytes]], models: dict[str, dict[str, bytes]]
) -> list[tuple[str, str, str, dict[str, bytes]]]:
    """Beginning of the API's paths, beginning of the files' paths, id and files of everything that is served."""
    served = [(f"/api/datasets/{n}", f"/datasets/{n}/resolve/", n, f) for n, f in sets.items()]
    return served + [(f"/api/models/{n}", f"/{n}/resolve/", n, f) for n, f in models.items()]


def entries(files: dict[str, bytes]) -> list[dict]:
    """Files as the Hub lists them."""
    return [
        {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
        for n, b in files.items()
    ]


def refusal(gated: bool, there: bool) -> tuple[int, str]:
    """Status and code with which the Hub refuses a file; no code where it does not."""
    if gated:
        return 403, "GatedRepo"
    return (200, "") if there else (404, "EntryNotFound")


class Hub:
    """Serves datasets and models ``{id: {file: bytes}}``.

    ``cut`` names files whose transfer breaks half-way, ``gated`` models whose files need a login.
    """

    def __init__(
        self,
        sets: dict[str, dict[str, bytes]],
        cut: tuple[str, ...] = (),
        models: dict[str, dict[str, bytes]] | None = None,
        gated: tuple[str, ...] = (),
    ) -> None:
        hub = self
        self.sets, self.cut, self.requests = sets, cut, []
        self.routes = routes(sets, models or {})

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def reply(
                self,
                status: int,
                body: bytes,
                headers: dict[str, str] | None = None,
                length: int | None = None,
            ) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(length) if length else b""
                path = unquote(urlparse(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                for api, resolve, name, files in hub.routes:
                    if path == api or path.startswith(f"{api}/revision/"):
                        info = {
                            "id": name, "sha": SHA, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                            "lastModified": "2024-01-01T00:00:00.000Z", "siblings": [{"rfilename": n} for n in files],
                        }  # fmt: skip
                        return self.reply(200, json.dumps(info).encode())
                    if path.startswith(f"{api}/tree/"):
                        return self.reply(200, json.dumps(entries(files)).encode())
                    if path.startswith(f"{api}/paths-info/"):
                        wanted = json.loads(sent or b"{}").get("paths", []) if sent[:1] == b"{" else []
                        found = [e for e in entries(files) if e["path"] in wanted]
                        return self.reply(200, json.dumps(found).encode())
                    if path.startswith(resolve):
                        return self.send_file(name, path.removeprefix(resolve).split("/", 1)[1], files)
                return self.reply(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})

            def send_file(self, name: str, file: str, files: dict[str, bytes]) -> None:
                status, code = refusal(name in gated, file in files)
                if code:
                    return self.reply(status, b"{}", {"X-Error-Code": code, "X-Repo-Commit": SHA})
                body = files[file]
                headers = {
                    "X-Repo-Commit": SHA,
                    "ETag": f'"{hashlib.sha1(body).hexdigest()}"',
                    "Content-Type": "text/plain",
                }
                if file in hub.cut and self.command == "GET":
                    self.reply(200, body[: len(body) // 2], headers, length=len(body))
                    self.close_connection = True
                    return None
                return self.reply(200, body, headers)

            do_GET = do_POST = do_HEAD = handle_any

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
