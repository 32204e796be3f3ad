#!/usr/bin/env python3
"""Loads a server with clients that each send one request after the other, and counts the tokens of all.

    load.py http://127.0.0.1:8080 [--clients 1 4 8 16] [--prompt 128] [--tokens 64] [--requests 3]

Each request has a prompt of its own, so that nothing of it is in the cache. Of each number of clients it prints the
generated tokens a second, the median time to the first token, and the 50th and 95th percentile of the time between two
tokens of one answer. It speaks to anything with /v1/completions that takes token ids; standard library only.
"""

import argparse
import http.client
import json
import random
import statistics
import threading
import time
import urllib.parse


def ask(address, prompt, tokens, times):
    """Streams one answer; appends the times of its start and of its tokens."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    connection = http.client.HTTPConnection(address, timeout=600)
    begin = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {response.read().decode()}")
    seen = []
    for line in response:
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:])["choices"]
            # The last chunk of an answer has a reason and no token.
            if choices and not choices[0]["finish_reason"]:
                seen.append(time.perf_counter())
    connection.close()
    times.append((begin, seen))


def run(address, clients, prompt, tokens, requests, seed):
    """All clients at once; returns their times and how long it took."""
    times = []

    def client(number):
        draw = random.Random(seed * 1000 + number)
        for _ in range(requests):
            ask(address, [draw.randrange(1000, 30000) for _ in range(prompt)], tokens, times)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, default=3)
    options = parser.parse_args()
    address = urllib.parse.urlsplit(options.url).netloc
    run(address, 1, options.prompt, options.tokens, 1, 0)
    print("| clients | tokens/s | first token, ms | between tokens, ms: p50 | p95 |\n|---|---|---|---|---|")
    for clients in options.clients:
        times, took = run(address, clients, options.prompt, options.tokens, options.requests, clients)
        first = statistics.median(seen[0] - begin for begin, seen in times)
        gaps = sorted(b - a for _, seen in times for a, b in zip(seen, seen[1:]))
        rate = sum(len(seen) for _, seen in times) / took
        p50, p95 = gaps[len(gaps) // 2], gaps[int(len(gaps) * 0.95)]
        print(f"| {clients} | {rate:.1f} | {first * 1e3:.0f} | {p50 * 1e3:.1f} | {p95 * 1e3:.1f} |", flush=True)


if __name__ == "__main__":
    main()
