"""What the benchmarks start and read: peers, load, and CPU clocks of processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROXY_CORE, LOAD_CORE = 0, 1
START_TIMEOUT_S = 30.0  # valgrind starts slowly


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until something listens, at most ``START_TIMEOUT_S``.

    Raises:
        RuntimeError: the process ended, or nothing listened in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args}: nothing listens on {port}")


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, user and system, from its schedstat clocks."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def thread_cpu_ns(pid: int, tid: int) -> int:
    """CPU time of one thread, user and system; up to date while the thread sleeps."""
    return int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[0])


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(part) for part in text.split()]


def title(pid: int) -> str:
    """The process's command line, as ``ps`` shows it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


@dataclass
class Service:
    """A started process with the process whose CPU counts."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    counted_pid: int
    extra: dict[str, str] = field(default_factory=dict)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(command: list[str], port: int, core: int, log: Path) -> subprocess.Popen[bytes]:
    """Starts a command pinned to one core and waits for its port."""
    pinned = ["taskset", "-c", str(core), *command]
    with log.open("wb") as sink:
        process = subprocess.Popen(pinned, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    wait_port(port, process)
    return process


NGINX_COMMON = """
worker_processes 1; daemon off; master_process off; error_log {folder}/error.log crit;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000; keepalive_timeout 600s;
  {http}
}}
"""


def start_nginx(
    folder: Path, name: str, http: str, port: int, core: int, wrapper: list[str] | None = None
) -> Service:
    """Debian's nginx in one process, with ``http`` as the block's content."""
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    conf = home / "nginx.conf"
    conf.write_text(NGINX_COMMON.format(folder=home, http=http))
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [*(wrapper or []), nginx, "-p", str(home), "-c", str(conf)]
    process = start(command, port, core, home / "log")
    return Service(name, port, process, process.pid)


def start_origin(folder: Path) -> Service:
    """The app's place is taken by something that is never the bottleneck."""
    port = free_port()
    program = ROOT / "build" / "release" / "origin"
    process = start([str(program), str(port)], port, LOAD_CORE, folder / "origin.log")
    return Service("origin", port, process, process.pid)


def make_certificate(folder: Path) -> Path:
    """A P-256 certificate for 127.0.0.1, signed by itself, with its key in one PEM file."""
    key, certificate, both = (folder / f"tls.{name}" for name in ("key", "crt", "pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "30", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(certificate.read_text() + key.read_text())
    return both


def start_nginx_proxy(
    folder: Path,
    origin_port: int,
    wrapper: list[str] | None = None,
    tls: Path | None = None,
) -> Service:
    """nginx as the peer: keep-alive on both sides; TLS with the PEM file ``tls``."""
    port = free_port()
    secure = (
        f" ssl; ssl_certificate {tls}; ssl_certificate_key {tls}; ssl_protocols TLSv1.2 TLSv1.3"
        if tls
        else ""
    )
    http = (
        f"upstream app {{ server 127.0.0.1:{origin_port}; keepalive 256;"
        " keepalive_requests 100000000; keepalive_timeout 600s; } "
        f"server {{ listen 127.0.0.1:{port}{secure}; location / {{ proxy_pass http://app;"
        " client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;"
        ' proxy_http_version 1.1; proxy_set_header Connection ""; } }'
    )
    service = start_nginx(folder, "nginx-tls" if tls else "nginx", http, port, PROXY_CORE, wrapper)
    service.name = "nginx"
    return service


def start_haproxy(
    folder: Path,
    origin_port: int,
    wrapper: list[str] | None = None,
    tls: Path | None = None,
) -> Service:
    """HAProxy as the peer: one thread, connections shared; TLS with the PEM file ``tls``."""
    port = free_port()
    secure = f" ssl crt {tls}" if tls else ""
    home = folder / ("haproxy-tls" if tls else "haproxy")
    home.mkdir(parents=True, exist_ok=True)
    conf = home / "haproxy.cfg"
    conf.write_text(
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode http\n  timeout connect 5s\n"
        "  timeout client 600s\n  timeout server 600s\n"
        "  option http-keep-alive\n  http-reuse always\n"
        f"frontend f\n  bind 127.0.0.1:{port}{secure}\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{origin_port}\n"
    )
    haproxy = shutil.which("haproxy") or "/usr/sbin/haproxy"
    command = [*(wrapper or []), haproxy, "-db", "-f", str(conf)]
    process = start(command, port, PROXY_CORE, home / "log")
    return Service("haproxy", port, process, process.pid)


def tailrace_config(
    folder: Path,
    name: str,
    origin_port: int,
    tls: Path | None = None,
    limits: dict[str, int] | None = None,
) -> tuple[int, Path, Path]:
    """Writes a config file; returns the port, the file and the control socket."""
    files = {"certificate_file": str(tls), "key_file": str(tls)}
    secure = {"tls": {"certificates": [files]}} if tls else {}
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    control = home / "control.sock"
    config = {
        "listeners": [{"address": f"127.0.0.1:{port}", **secure}],
        "upstreams": {"app": {"servers": [f"127.0.0.1:{origin_port}"]}},
        "control": {"listeners": [{"address": f"unix:{control}", "role": "admin"}]},
        "store": {"path": str(home / "store.db")},
        "limits": limits or {},
    }
    conf = home / "tailrace.json"
    conf.write_text(json.dumps(config))
    return port, conf, control


def start_worker_alone(
    folder: Path, origin_port: int, wrapper: list[str], limits: dict[str, int] | None = None
) -> Service:
    """Our worker without supervisor and collector, under ``wrapper`` (callgrind)."""
    port, conf, _ = tailrace_config(folder, "tailrace-alone", origin_port, limits=limits)
    command = [*wrapper, str(ROOT / "build" / "release" / "worker_alone"), str(conf)]
    process = start(command, port, PROXY_CORE, conf.parent / "log")
    return Service("worker alone", port, process, process.pid)


def child(process: subprocess.Popen[bytes], role: str) -> int:
    """The supervisor's child of that role, once it has its title.

    Raises:
        RuntimeError: there was none in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        for pid in children(process.pid):
            if role in title(pid):
                return pid
        time.sleep(0.05)
    raise RuntimeError(f"no {role} among the children of {process.pid}")


def start_tailrace(
    folder: Path,
    name: str,
    origin_port: int,
    tls: Path | None = None,
    limits: dict[str, int] | None = None,
) -> Service:
    """Our gateway; the worker's CPU counts (the collector is not in a request's way).

    The worker stays on the proxies' core, the collector moves to the load's core.
    """
    port, conf, control = tailrace_config(folder, name, origin_port, tls, limits)
    binary = os.environ.get("TAILRACE_BIN", str(ROOT / "build" / "tailrace"))
    process = start([binary, "run", "-c", str(conf)], port, PROXY_CORE, conf.parent / "log")
    worker, collector = child(process, "worker"), child(process, "collector")
    for task in Path(f"/proc/{collector}/task").iterdir():
        os.sched_setaffinity(int(task.name), {LOAD_CORE})
    extra = {"control": str(control), "collector": str(collector)}
    return Service(name, port, process, worker, extra)


def wrk(
    port: int, connections: int, seconds: int, scheme: str = "http", close: bool = False
) -> int:
    """Loads a port for a while; returns the number of requests answered.

    ``close``: each request on a connection of its own.

    Raises:
        RuntimeError: an answer was not 2xx, or sockets failed.
    """
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}"]
    command += [f"-d{seconds}s", f"{scheme}://127.0.0.1:{port}/"]
    command += ["-H", "Connection: close"] if close else []
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"load on {port} failed:\n{out}")
    found = re.search(r"(\d+) requests in", out)
    if not found:
        raise RuntimeError(f"wrk said nothing of requests:\n{out}")
    return int(found[1])


def keepalive_gets(port: int, connections: int, per_connection: int, at_once: bool = True) -> int:
    """A fixed number of GETs over kept-alive connections, one in flight at a time on each.

    ``at_once``: all connections send, then all are read, so that the proxy sees ``connections``
    requests in few turns of its loop; else one after the other, each in turns of its own.
    """
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    done = 0
    groups = [sockets] if at_once else [[sock] for sock in sockets]
    for _ in range(per_connection):
        for group in groups:
            for sock in group:
                sock.sendall(request)
            for sock in group:
                answer = sock.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"unexpected answer: {answer[:80]!r}")
                done += 1
    for sock in sockets:
        sock.close()
    return done
