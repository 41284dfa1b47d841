"""Real clients against a real app: what each of them does by default must work."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import websockets
from harness import ROOT, AppServer, Gateway

GatewayFactory = Callable[..., Gateway]
AppFactory = Callable[..., AppServer]

BODY = b"0123456789abcdef" * 20_000  # over all buffers


@pytest.fixture
def base(gateway_factory: GatewayFactory, uvicorn_factory: AppFactory) -> str:
    """The address of a gateway in front of the echo app."""
    return gateway_factory([uvicorn_factory("proxy_app:app").address]).base


def _pieces() -> Iterator[bytes]:
    for at in range(0, len(BODY), 7000):
        yield BODY[at : at + 7000]


def test_requests(base: str) -> None:
    """A session: keep-alive, JSON, chunked upload, streamed download, HEAD, an early answer."""
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{base}/x?y=z", timeout=10).json()["target"] == "/x?y=z"
        answer = session.post(f"{base}/json", json={"a": 1}, timeout=10)
        assert json.loads(answer.json()["body"]) == {"a": 1}
        assert session.post(f"{base}/echo", data=_pieces(), timeout=20).content == BODY
        with session.post(f"{base}/echo", data=BODY, stream=True, timeout=20) as answer:
            assert b"".join(answer.iter_content(1000)) == BODY
        assert session.head(f"{base}/x", timeout=10).status_code == 200
        assert session.get(f"{base}/204", timeout=10).status_code == 204
        assert session.get(f"{base}/304", timeout=10).status_code == 304
        assert session.post(f"{base}/early413", data=b"x" * 10, timeout=10).status_code == 413


def _load(*command: str) -> str:
    program = shutil.which(command[0])
    assert program, f"{command[0]} is missing: make deps-test"
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wrk(base: str) -> None:
    """Two seconds as fast as it goes: each answer is 2xx, no connection breaks."""
    out = _load("wrk", "-t1", "-c50", "-d2s", f"{base}/x")
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    assert " requests in " in out, out


def test_h2load(base: str) -> None:
    """A set number of requests, kept alive and on many connections: all succeed."""
    out = _load("h2load", "--h1", "-n", "3000", "-c", "30", f"{base}/x")
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in out, out


def test_httpx(base: str) -> None:
    """Concurrent requests over few connections; streaming both ways."""

    async def run() -> None:
        limits = httpx.Limits(max_connections=5)
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=20) as client:
            answers = await asyncio.gather(*(client.get(f"/n{i}") for i in range(50)))
            assert [a.json()["target"] for a in answers] == [f"/n{i}?" for i in range(50)]

            async def pieces() -> Any:
                for piece in _pieces():
                    yield piece

            async with client.stream("POST", "/echo", content=pieces()) as answer:
                assert b"".join([part async for part in answer.aiter_bytes()]) == BODY
            async with client.stream("GET", "/stream") as answer:
                assert b"".join([part async for part in answer.aiter_raw()]) == b"one two three"

    asyncio.run(run())


def test_aiohttp(base: str) -> None:
    """A session with Expect: 100-continue, chunked upload and pipelined reuse."""

    async def run() -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(base, timeout=timeout) as session:

            async def one(number: int) -> str:
                async with session.get(f"/n{number}") as answer:
                    return str((await answer.json(content_type=None))["target"])

            found = await asyncio.gather(*(one(i) for i in range(50)))
            assert found == [f"/n{i}?" for i in range(50)]
            async with session.post("/echo", data=BODY) as answer:
                assert await answer.read() == BODY
            # the app reads before it answers, so uvicorn says 100
            async with session.post("/x", data=BODY, expect100=True) as answer:
                assert (await answer.json(content_type=None))["body"] == BODY.decode()
            async with session.post("/x", data={"field": "value"}) as answer:
                assert (await answer.json(content_type=None))["body"] == "field=value"

    asyncio.run(run())


def test_websockets(gateway_factory: GatewayFactory, uvicorn_factory: AppFactory) -> None:
    """Compression, fragments, pings and many sockets at once."""
    gateway = gateway_factory([uvicorn_factory("ws_app:app").address])

    async def one(number: int) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/{number}") as client:
            await (await client.ping())
            for message in (f"{number}", b"\0" * 70_000, "x" * 200_000):
                await client.send(message)
                assert await client.recv() == message
            await client.send(["frag", "men", "ted"])
            assert await client.recv() == "fragmented"

    async def run() -> None:
        await asyncio.gather(*(one(i) for i in range(20)))

    asyncio.run(run())


NODE = """
const http = require('http');
const base = process.argv[2];
const agent = new http.Agent({keepAlive: true, maxSockets: 3});
function ask(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + path, {method, agent, headers}, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => resolve({answer, body: Buffer.concat(parts)}));
      answer.on('aborted', () => reject(new Error('aborted')));
    });
    request.on('error', reject);
    if (headers.Expect) request.on('continue', () => request.end(body));
    else request.end(body);
  });
}
(async () => {
  const all = await Promise.all([...Array(50).keys()].map((i) => ask('GET', '/n' + i)));
  all.forEach((got, i) => {
    if (JSON.parse(got.body).target !== '/n' + i + '?') throw new Error('wrong answer');
  });
  const big = Buffer.alloc(300000, 'node');
  const echoed = await ask('POST', '/echo', big, {'Transfer-Encoding': 'chunked'});
  if (!echoed.body.equals(big)) throw new Error('wrong echo');
  const asked = await ask('POST', '/x', 'yes', {Expect: '100-continue', 'Content-Length': 3});
  if (JSON.parse(asked.body).body !== 'yes') throw new Error('wrong body');
  const none = await ask('GET', '/204');
  if (none.answer.statusCode !== 204) throw new Error('no 204');
  agent.destroy();
  console.log('fine');
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_node(base: str, tmp_path: Path) -> None:
    """Node's http with a keep-alive agent."""
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.skip("NOT TESTED: Node's client, for there is no node here")
    script = tmp_path / "client.js"
    script.write_text(NODE)
    done = subprocess.run([node, script, base], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "fine\n", done.stderr


GO = """package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func ask(method, url string, body io.Reader) []byte {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		panic(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		panic(err)
	}
	return got
}

func main() {
	base := os.Args[1]
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			path := fmt.Sprintf("/n%d", i)
			if !bytes.Contains(ask("GET", base+path, nil), []byte(path+"?")) {
				panic("wrong answer")
			}
		}(i)
	}
	all.Wait()
	big := bytes.Repeat([]byte("go"), 150000)
	// a plain reader has no length: chunked
	if !bytes.Equal(ask("POST", base+"/echo", io.MultiReader(bytes.NewReader(big))), big) {
		panic("wrong echo")
	}
	fmt.Println("fine")
}
"""


@pytest.mark.timeout(300)
def test_go(base: str, tmp_path: Path) -> None:
    """Go's net/http."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("NOT TESTED: Go's client, for there is no go here")
    source = tmp_path / "client.go"
    source.write_text(GO)
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GOFLAGS": "-mod=mod"}
    cache = ROOT / "build" / "go-cache"  # of Go's own library too: a minute, once
    env |= {"GOCACHE": str(cache), "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    done = subprocess.run(
        [go, "run", source, base], capture_output=True, text=True, timeout=280, env=env
    )
    assert done.returncode == 0 and done.stdout == "fine\n", done.stderr
