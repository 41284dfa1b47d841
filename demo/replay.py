"""Has a client command print stored answers of the API, so that samples are the command's own."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

BINARY = Path(__file__).resolve().parent.parent / "build" / "tailrace"


def answer_to(path: str, files: dict[str, Any]) -> Any:
    """The stored answer that fits a path, or null: told from what it holds."""
    place = path.partition("?")[0]
    if place == "/api/v1/routes":
        ids = [one for one in files.values() if "tree" in one]
        return {"routes": [{"id": one["id"], "route": one["route"]} for one in ids]}
    for one in files.values():
        if "tree" in one and place == f"/api/v1/routes/{one['id']}/flame":
            return one
        if "evidence" in one and place == f"/api/v1/incidents/{one['id']}":
            return one
        if "phases" in one and place == f"/api/v1/requests/{one['trace_id']}":
            return one
    return None


def printed(files: dict[str, Any], *arguments: str) -> str:
    """What `tailrace ARGUMENTS` prints into a pipe where the gateway answers so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "client"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            found = answer_to(self.path, files)
            data = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with tempfile.TemporaryDirectory(prefix="tailrace-") as folder:
        socket = f"{folder}/control.sock"
        with Unix(socket, Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            done = subprocess.run(
                [os.environ.get("TAILRACE_BIN", BINARY), *arguments, "--control", f"unix:{socket}"],
                capture_output=True,
                text=True,
                encoding="utf-8",
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                timeout=30,
            )
            server.shutdown()
    if done.returncode != 0:
        raise RuntimeError(f"tailrace {' '.join(arguments)}: {done.stderr}")
    return done.stdout
