// The server's routes, as OpenAI's clients use them.

/** An error that the server or the connection reports; `status` is that of HTTP, 0 without an answer. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

function headers(key) {
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  return headers;
}

async function request(path, key, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(key) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const body = await response.text();
  let message = body.slice(0, 500);
  try {
    message = JSON.parse(body).error?.message ?? message;
  } catch {
    // It is not JSON: the text itself says what is wrong.
  }
  throw new ApiError(message || `The server answered with status ${response.status}.`, response.status);
}

/** Names of the models. */
export async function models(key) {
  const response = await request("v1/models", key);
  const { data } = await response.json();
  return data.map((model) => model.id);
}

/** The answer to a chat: calls `heard` with each chunk as it comes, until it ends or `signal` aborts it. */
export async function chat(body, key, signal, heard) {
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", key, { method: "POST", body: JSON.stringify(whole), signal });
  let ended = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      ended = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    heard(chunk);
  }
  if (!ended) throw new ApiError("The server broke off before the end of the answer.");
}

/** The data of server-sent events; comments, which keep the connection open, are left out. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
