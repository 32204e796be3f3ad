#!/usr/bin/env python3
"""Random JSON schemas: every answer must be valid.

    VENV/bin/python tests/clients/schemas.py target/release/handmill [MODEL] [--schemas 200] [--seed 1]

The environment is that of openai_client.py. Exit code 0 where all answers are valid.
"""

import argparse
import concurrent.futures
import json
import random
import re
import subprocess
import sys
import urllib.request

import jsonschema

WORDS = ["name", "age", "tags", "city", "ok", "id", "size", "parts", "note", "grüße", "a b", "x-1", '"q"']


def schema(draw, depth=0):
    """A schema whose answers are short."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf"]
    kind = "object" if depth == 0 else draw.choice(kinds)
    match kind:
        case "object":
            names = draw.sample(WORDS, draw.randint(0 if depth else 1, 4))
            required = [name for name in names if draw.random() < 0.7]
            properties = {name: schema(draw, depth + 1) for name in names}
            return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        case "array":
            least = draw.randint(0, 2)
            return {"type": "array", "items": schema(draw, depth + 1), "minItems": least, "maxItems": least + draw.randint(0, 2)}
        case "anyOf":
            return {"anyOf": [schema(draw, depth + 1) for _ in range(draw.randint(2, 3))]}
        case "string":
            least = draw.randint(0, 5)
            return {"type": "string", "minLength": least, "maxLength": least + draw.randint(0, 20)}
        case "integer":
            least = draw.randint(-1000, 1000)
            return {"type": "integer", "minimum": least, "maximum": least + draw.randint(0, 5000)}
        case "number":
            # Without a multiple a small model may write zeros until the limit.
            return {"type": "number", "minimum": -1, "maximum": draw.choice([0, 1.5, 100]), "multipleOf": 0.25}
        case "enum":
            return {"enum": draw.sample(["red", "green", "ü", 3, 2.5, None, True, {"a": 1}, [1, "x"]], draw.randint(1, 4))}
        case "const":
            return {"const": draw.choice(["fixed", 7, False, {"k": []}])}
        case "pattern":
            return {"type": "string", "pattern": draw.choice(["^[A-Z]{2}-[0-9]{3}$", "^(yes|no)$", "^[a-f0-9]{4,8}$"])}
        case kind:
            return {"type": kind}


def ask(url, seed):
    """What is wrong with the answer to the schema of that number; nothing where nothing is."""
    wanted = schema(random.Random(seed))
    body = {
        "messages": [{"role": "user", "content": "Make up some data."}],
        "max_tokens": 1200,
        "temperature": 1.0,
        "seed": seed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "data", "schema": wanted}},
    }
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())) as response:
            choice = json.load(response)["choices"][0]
        assert choice["finish_reason"] == "stop", choice
        jsonschema.validate(json.loads(choice["message"]["content"]), wanted)
    except urllib.error.HTTPError as error:
        return f"{error.read().decode()} for {json.dumps(wanted)}"
    except (AssertionError, ValueError, jsonschema.ValidationError) as error:
        return f"{error} for {json.dumps(wanted)}"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("handmill")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    command = [args.handmill, "serve", *([args.model] if args.model else []), "--port", "0", "--backend", "cpu"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stderr.readline, "")
        url = next(found[1] for found in map(re.compile(r"listening on (http://\S+)").search, lines) if found)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            seeds = range(args.seed, args.seed + args.schemas)
            wrong = [why for why in pool.map(lambda seed: ask(url, seed), seeds) if why]
    finally:
        server.terminate()
        server.wait(60)
    for why in wrong:
        print(why)
    print(f"{args.schemas - len(wrong)} of {args.schemas} answers are valid")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
