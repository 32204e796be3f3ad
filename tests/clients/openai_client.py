#!/usr/bin/env python3
"""Every route and field of OpenAI's that `handmill serve` has, through the package `openai`, on a real model.

    python3 -m venv VENV && VENV/bin/pip install -r tests/clients/requirements.txt
    VENV/bin/python tests/clients/openai_client.py target/release/handmill [MODEL]

MODEL (the default model without one) has a template with tools, and marks of gaps. Exit code 0 where all checks hold.
"""

import json
import re
import subprocess
import sys
import traceback
import urllib.request

import openai
from pydantic import BaseModel

CHECKS = []
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FRANCE = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]


class City(BaseModel):
    name: str
    inhabitants: int


def check(function):
    CHECKS.append(function)
    return function


def chat(client, **more):
    return client.chat.completions.create(**{"model": "x", "messages": FRANCE, "temperature": 0, "max_tokens": 16, **more})


@check
def models(client):
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    try:
        client.models.retrieve("another")
    except openai.NotFoundError:
        return
    raise AssertionError("a model that is not there was found")


@check
def a_chat_whole_and_streamed(client):
    whole = chat(client)
    text = whole.choices[0].message.content
    assert "Paris" in text, text
    assert whole.choices[0].finish_reason == "stop" and whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert {c.id for c in chunks} == {chunks[0].id}


@check
def the_client_streams_with_its_own_helper(client):
    with client.chat.completions.stream(model="x", messages=FRANCE, temperature=0, max_tokens=16) as stream:
        for _ in stream:
            pass
        assert "Paris" in stream.get_final_completion().choices[0].message.content


@check
def n_seed_and_sampling(client):
    options = {"temperature": 1.0, "seed": 7, "n": 3, "top_p": 0.9, "presence_penalty": 0.2, "frequency_penalty": 0.1}
    extra = {"top_k": 30, "min_p": 0.02, "repetition_penalty": 1.05, "ignore_eos": True}
    first, second = (chat(client, **options, extra_body=extra) for _ in range(2))
    texts = [c.message.content for c in first.choices]
    assert texts == [c.message.content for c in second.choices] and len(set(texts)) > 1, texts
    assert first.usage.completion_tokens == 48


@check
def stop_and_limits(client):
    assert chat(client, max_tokens=1).choices[0].finish_reason == "length"
    assert chat(client, max_tokens=openai.omit, max_completion_tokens=1).usage.completion_tokens == 1
    stopped = chat(client, stop=["aris"]).choices[0]
    assert stopped.message.content.endswith("P") and stopped.finish_reason == "stop", stopped


@check
def log_probabilities(client):
    content = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert content and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in content)
    # Greedy: the token is the likeliest, and the two numbers are one.
    assert all(t.logprob == t.top_logprobs[0].logprob and t.token == t.top_logprobs[0].token for t in content)


@check
def logit_bias(client):
    paris = chat(client, logprobs=True).choices[0].logprobs.content[0].token
    request = urllib.request.Request(str(client.base_url).replace("/v1/", "/tokenize"), json.dumps({"content": paris}).encode())
    (token,) = json.load(urllib.request.urlopen(request))["tokens"]
    # Other tokens may spell the same word.
    biased = chat(client, logit_bias={str(token): -100}, logprobs=True).choices[0].logprobs.content
    assert all(t.token != paris for t in biased)
    assert chat(client, logit_bias={str(token): 100}, max_tokens=2).choices[0].message.content == 2 * paris


@check
def schemas(client):
    parsed = client.chat.completions.parse(
        model="x", messages=[{"role": "user", "content": "Tell me of Paris, as JSON."}], response_format=City, max_tokens=100, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    whole = chat(client, response_format={"type": "json_object"}, max_tokens=100)
    assert isinstance(json.loads(whole.choices[0].message.content), dict) or whole.choices[0].finish_reason == "length"
    digits = chat(client, extra_body={"guided_regex": "[0-9]{4}"}).choices[0].message.content
    assert re.fullmatch("[0-9]{4}", digits), digits
    assert chat(client, extra_body={"guided_choice": ["Rome", "Oslo"]}).choices[0].message.content in ("Rome", "Oslo")


@check
def tools_and_their_results(client):
    asked = [{"role": "user", "content": "What is the temperature in Bonn?"}]
    # A small model may answer with words.
    free = chat(client, messages=asked, tools=[WEATHER], max_tokens=80).choices[0]
    assert (free.finish_reason == "tool_calls") == bool(free.message.tool_calls), free
    answer = chat(client, messages=asked, tools=[WEATHER], tool_choice="required", max_tokens=80).choices[0]
    assert answer.finish_reason == "tool_calls", answer
    call = answer.message.tool_calls[0]
    assert "Bonn" in json.loads(call.function.arguments)["city"]
    told = asked + [answer.message, *({"role": "tool", "tool_call_id": c.id, "content": '{"celsius": 21}'} for c in answer.message.tool_calls)]
    said = chat(client, messages=told, tools=[WEATHER], tool_choice="none", max_tokens=60).choices[0].message
    assert "21" in said.content and not said.tool_calls, said


@check
def tools_that_are_forced(client):
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        answer = chat(client, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, max_tokens=100).choices[0]
        (call,) = answer.message.tool_calls
        assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
    chunks = list(chat(client, tools=[WEATHER], tool_choice="required", stream=True, max_tokens=100, parallel_tool_calls=False))
    parts = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices and c.choices[0].delta.tool_calls]
    assert parts[0].id and parts[0].function.name == "get_weather" and all(p.index == 0 for p in parts)
    json.loads("".join(p.function.arguments or "" for p in parts))


@check
def completions(client):
    whole = client.completions.create(model="x", prompt="1, 2, 3, 4,", max_tokens=8, temperature=0, logprobs=2, echo=True)
    choice = whole.choices[0]
    assert choice.text.startswith("1, 2, 3, 4, 5"), choice.text
    assert choice.logprobs.token_logprobs[0] is None and len(choice.logprobs.tokens) == len(choice.logprobs.text_offset)
    several = client.completions.create(model="x", prompt=["a", "b"], n=2, max_tokens=4)
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    chunks = client.completions.create(model="x", prompt="1, 2, 3, 4,", max_tokens=8, temperature=0, stream=True)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == choice.text[len("1, 2, 3, 4,"):]


@check
def gaps(client):
    filled = client.completions.create(
        model="x", prompt="def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))\n", max_tokens=12, temperature=0
    )
    assert "a + b" in filled.choices[0].text, filled.choices[0].text


@check
def embeddings(client):
    floats = client.embeddings.create(model="x", input=["cat", "dog"], encoding_format="float").data
    (base64, _) = client.embeddings.create(model="x", input=["cat", "dog"]).data
    assert abs(sum(x * x for x in floats[0].embedding) - 1) < 1e-4
    assert max(abs(a - b) for a, b in zip(floats[0].embedding, base64.embedding)) < 1e-6


@check
def responses(client):
    whole = client.responses.create(model="x", input="What is the capital of France?", temperature=0, max_output_tokens=16)
    assert "Paris" in whole.output_text, whole.output_text
    events = list(client.responses.create(model="x", input="What is the capital of France?", temperature=0, max_output_tokens=16, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == whole.output_text
    tool = {"type": "function", **WEATHER["function"]}
    called = client.responses.create(model="x", input="Weather in Bonn?", tools=[tool], tool_choice="required", max_output_tokens=100)
    assert any(item.type == "function_call" and json.loads(item.arguments) for item in called.output)
    parsed = client.responses.parse(model="x", input="Tell me of Paris, as JSON.", text_format=City, max_output_tokens=100, temperature=0)
    assert isinstance(parsed.output_parsed, City)


@check
def what_is_wrong_is_named(client):
    for more, field in (({"temperature": -1}, "temperature"), ({"extra_body": {"top_k": "x"}}, "top_k"), ({"n": 0}, "n")):
        try:
            chat(client, **more)
        except openai.BadRequestError as error:
            assert error.param == field, error
        else:
            raise AssertionError(f"{field} was taken")
    try:
        chat(client, messages=[{"role": "user", "content": "word " * 5000}])
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded" and len(re.findall("[0-9]+", error.message)) >= 2, error
    else:
        raise AssertionError("a prompt that is too long was taken")


@check
def unknown_fields_are_taken(client):
    assert chat(client, user="me", metadata={"a": "b"}, store=False, extra_body={"whatever": 1}).choices


@check
def a_client_may_leave(client):
    stream = chat(client, max_tokens=400, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    assert "Paris" in chat(client).choices[0].message.content


def main():
    command = [sys.argv[1], "serve", *sys.argv[2:3], "--port", "0", "--ctx", "4096", "--embeddings"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    failed = 0
    try:
        lines = iter(server.stderr.readline, "")
        url = next(found[1] for found in map(re.compile(r"listening on (http://\S+)").search, lines) if found)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        for function in CHECKS:
            try:
                function(client)
                print(f"ok      {function.__name__}")
            except Exception:
                failed += 1
                print(f"FAILED  {function.__name__}")
                traceback.print_exc()
    finally:
        server.terminate()
        server.wait(30)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
