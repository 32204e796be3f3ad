#!/usr/bin/env python3
"""Many short requests, of which many are left: every answer must be the serial one, every page must come back, and memory must
stay as it is. Beside them 1,000 connections are idle and some clients read slowly.

    benches/server/soak.py target/release/handmill MODEL [--requests 10000] [--idle 1000] [--clients 16]

Exit code 0 where all of that holds.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time

PROMPTS = [f"{'The river flows through the old town. ' * (i % 4)}Number {i} of the list is" for i in range(24)]


def body(i, n, stream):
    fields = {"prompt": PROMPTS[i], "max_tokens": n, "temperature": 0.8, "seed": i, "ignore_eos": True, "stream": stream}
    return json.dumps(fields).encode()


def request(data):
    return b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(data) + data


def unchunked(data):
    whole = b""
    while data:
        size, data = data.split(b"\r\n", 1)
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2:]
        if length == 0:
            break
    return whole


def text_of(response, stream):
    head, data = response.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200"), response[:300]
    if b"chunked" in head.lower():
        data = unchunked(data)
    if not stream:
        return json.loads(data)["choices"][0]["text"]
    events = [line[6:] for line in data.decode().split("\n") if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


class Soak:
    def __init__(self, args, port):
        self.args, self.port, self.expected = args, port, {}
        self.left = self.done = 0

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def whole(self, i, n, stream, slow=False):
        reader, writer = await self.connect()
        writer.write(request(body(i, n, stream)))
        response = b""
        while part := await reader.read(7 if slow else 1 << 16):
            response += part
            if slow:
                await asyncio.sleep(0.002)
        writer.close()
        return text_of(response, stream)

    async def get(self, path):
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        response = await reader.read()
        writer.close()
        return response.split(b"\r\n\r\n", 1)[1].decode()

    async def leave(self, draw, i, n):
        reader, writer = await self.connect()
        writer.write(request(body(i, n, True))[: draw.choice([40, 400, 1 << 20])])
        if draw.random() < 0.5:
            await asyncio.sleep(draw.random() * 0.03)
        else:
            try:
                await asyncio.wait_for(reader.read(draw.choice([1, 500, 2000])), 5)
            except TimeoutError:
                pass
        writer.transport.abort() if draw.random() < 0.5 else writer.close()
        self.left += 1

    async def client(self, seed, n):
        draw = random.Random(seed)
        for _ in range(n):
            i, length, stream = draw.randrange(len(PROMPTS)), draw.randint(1, 8), draw.random() < 0.5
            if draw.random() < 0.4:
                await self.leave(draw, i, draw.choice([8, 300]))
                continue
            text = await self.whole(i, length, stream, slow=draw.random() < 0.02)
            assert text == self.expected[i, length], (i, length, text, self.expected[i, length])
            self.done += 1

    async def metrics(self):
        lines = (line.rsplit(" ", 1) for line in (await self.get("/metrics")).splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    async def run(self, memory):
        for i in range(len(PROMPTS)):
            for n in range(1, 9):
                self.expected[i, n] = await self.whole(i, n, False)
        idle = [await self.connect() for _ in range(self.args.idle)]
        sizes, held, start = [], [], time.time()
        each = self.args.requests // 10 // self.args.clients
        for part in range(10):
            await asyncio.gather(*(self.client(part * 1000 + c, each) for c in range(self.args.clients)))
            sizes.append(memory())
            held.append(await self.held())
            print(f"{self.done} answered, {self.left} left, {sizes[-1] / 1e6:.1f} MB, pages of {held[-1]:.0f} tokens held", flush=True)
        for _, writer in idle:
            writer.close()
        grown = max(sizes[5:]) / sizes[1] - 1
        print(f"{self.done + self.left} requests in {time.time() - start:.0f} s, memory {grown:+.1%} from the second tenth on")
        assert max(held[5:]) <= max(held[:3]) * 1.1, "pages do not come back"
        assert grown < 0.05, "memory grew"

    async def held(self):
        """Tokens of pages that are neither free nor full of what is kept, once nothing runs: the ends of what is kept."""
        for _ in range(200):
            await asyncio.sleep(0.05)
            found = await self.metrics()
            if found["handmill_requests_running"] == 0 == found["handmill_requests_queued"]:
                free, kept = (found[f"handmill_cache_tokens_{of}"] for of in ("free", "kept"))
                return found["handmill_cache_tokens"] - free - kept
        raise AssertionError("requests still run")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("handmill")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--idle", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    command = [args.handmill, "serve", args.model, "--port", "0", "--backend", "cpu", "--ctx", "512", "--cache-tokens", "4096"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = iter(server.stderr.readline, "")
    port = next(int(found[1]) for found in map(re.compile(r"listening on http://\S+:(\d+)").search, lines) if found)

    def memory():
        status = open(f"/proc/{server.pid}/status").read()
        # What is mapped from the model's file does not count.
        return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024

    try:
        asyncio.run(Soak(args, port).run(memory))
    finally:
        server.terminate()
        code = server.wait(60)
    assert code == 0, f"the server ended with {code}"


if __name__ == "__main__":
    sys.exit(main())
