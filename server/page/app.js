// The page: a conversation with the server that it comes from.

import * as api from "./api.js";
import { Store } from "./store.js";
import { MessageView } from "./view.js";

const byId = (id) => document.getElementById(id);
const [log, status, composer, box, send, stop] = ["log", "status", "composer", "message", "send", "stop"].map(byId);
const [model, panel, toggle, settings, chats] = ["model", "panel", "panel-toggle", "settings", "chats"].map(byId);

const store = new Store();
let views = [];
/** Ends the answer that is under way. */
let running = null;

// ---- the conversation ----

function show() {
  views = store.chat.messages.map(makeView);
  log.replaceChildren(...views.map((view) => view.root));
  log.scrollTop = log.scrollHeight;
  showChats();
}

function makeView(message) {
  return new MessageView(message, {
    edit: (text) => change(message, text),
    again: () => answerFrom(store.chat.messages.indexOf(message)),
  });
}

function add(message) {
  store.chat.messages.push(message);
  const view = makeView(message);
  views.push(view);
  log.append(view.root);
  log.scrollTop = log.scrollHeight;
  return view;
}

/** Takes a new text for a message. An answer is kept with it, behind a user's message all is answered anew. */
function change(message, text) {
  if (running || text.trim() === "") return;
  message.content = text;
  const at = store.chat.messages.indexOf(message);
  if (message.role === "user") {
    answerFrom(at + 1);
  } else {
    delete message.figures;
    views[at].update();
    store.save();
  }
}

/** Answers what is before message `at`; that one and what follows it go. */
function answerFrom(at) {
  if (running) return;
  store.chat.messages.length = at;
  show();
  answer();
}

async function answer() {
  const { chat } = store;
  const asked = request(chat.messages);
  const message = { role: "assistant", content: "" };
  const view = add(message);
  const started = performance.now();
  let first = null;
  let usage = null;
  let drawn = 0;
  begin();
  const draw = (whole) => {
    // A long answer is not drawn anew for every token.
    if (!whole && performance.now() - drawn < 50) return;
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    view.update(!whole);
    if (follows) log.scrollTop = log.scrollHeight;
    drawn = performance.now();
  };
  try {
    await api.chat(asked, store.key, running.signal, (chunk) => {
      usage = chunk.usage ?? usage;
      for (const { delta, finish_reason: reason } of chunk.choices ?? []) {
        if (take(message, delta ?? {})) first ??= performance.now();
        if (reason === "length") message.note = "cut off: no more tokens are allowed, or the context is full";
      }
      draw(false);
    });
  } catch (error) {
    if (error.name === "AbortError") message.note = "stopped";
    else message.error = error.message;
    if (error.status === 401) openPanel(settings.elements.key);
  }
  message.figures = figures(message, usage, started, first);
  delete message.note;
  end(message.error ? "The answer failed." : "The answer is complete.");
  if (store.chat === chat) draw(true);
  if (!store.save()) status.textContent = "This browser has no room to keep the chat.";
}

/** Takes what a chunk adds. Returns whether it adds something. */
function take(message, delta) {
  if (delta.content) message.content += delta.content;
  if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  for (const part of delta.tool_calls ?? []) {
    message.calls ??= [];
    const call = (message.calls[part.index] ??= { id: part.id, name: "", arguments: "" });
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls?.length);
}

function figures(message, usage, started, first) {
  const parts = message.note ? [message.note] : [];
  if (usage) {
    const seconds = (performance.now() - (first ?? started)) / 1000;
    const tokens = usage.completion_tokens;
    const rate = tokens > 1 && seconds > 0 ? ` (${((tokens - 1) / seconds).toFixed(1)} a second)` : "";
    parts.push(`${tokens} tokens${rate}`);
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`prompt of ${usage.prompt_tokens}${cached ? `, ${cached} of them from the cache` : ""}`);
  }
  if (first !== null) parts.push(`first token after ${((first - started) / 1000).toFixed(2)} s`);
  return parts.join("; ");
}

/** What the server is asked: the messages as they are sent, and what of the settings is set. */
function request(messages) {
  const form = new FormData(settings);
  const body = { model: model.value, messages: [] };
  const system = form.get("system").trim();
  if (system) body.messages.push({ role: "system", content: system });
  for (const { role, content, reasoning, calls } of messages) {
    // Of an answer that failed there may be nothing.
    if (role === "assistant" && !content && !calls) continue;
    const message = { role, content };
    if (reasoning) message.reasoning_content = reasoning;
    if (calls) message.tool_calls = calls.map(({ id, name, arguments: json }) => ({ id, type: "function", function: { name, arguments: json } }));
    body.messages.push(message);
  }
  for (const name of ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"]) {
    if (form.get(name) !== "") body[name] = Number(form.get(name));
  }
  const thinking = form.get("thinking");
  if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === "on" };
  return body;
}

function begin() {
  running = new AbortController();
  // A screen reader waits for the whole answer.
  log.setAttribute("aria-busy", "true");
  status.textContent = "Answering …";
  send.hidden = true;
  stop.hidden = false;
}

function end(words) {
  running = null;
  log.removeAttribute("aria-busy");
  status.textContent = words;
  const focused = document.activeElement === stop;
  send.hidden = false;
  stop.hidden = true;
  if (focused) box.focus();
}

// ---- the box ----

function fit() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

box.oninput = fit;
box.onkeydown = (event) => {
  // While characters are being composed, Enter belongs to the input method.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  } else if (event.key === "ArrowUp" && box.value === "" && !running) {
    event.preventDefault();
    views.findLast((view) => view.message.role === "user")?.edit();
  }
};
composer.onsubmit = (event) => {
  event.preventDefault();
  const text = box.value;
  if (running || text.trim() === "") return;
  box.value = "";
  fit();
  add({ role: "user", content: text });
  showChats();
  answer();
};
stop.onclick = () => running?.abort();
document.onkeydown = (event) => {
  if (event.key === "Escape") running?.abort();
};

// ---- chats and settings ----

function showChats() {
  const items = store.chats.map((chat) => {
    const title = Store.title(chat);
    const open = Object.assign(document.createElement("button"), { type: "button", className: "open", textContent: title });
    if (chat === store.chat) open.setAttribute("aria-current", "true");
    open.onclick = () => leave(() => store.open(chat.id));
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "Delete" });
    remove.setAttribute("aria-label", `Delete the chat ${title}`);
    remove.onclick = () => {
      if (confirm(`Delete the chat "${title}"?`)) leave(() => store.remove(chat.id));
    };
    const item = document.createElement("li");
    item.append(open, remove);
    return item;
  });
  chats.replaceChildren(...items);
}

/** Ends what is under way, and shows another chat. */
function leave(to) {
  running?.abort();
  to();
  show();
  box.focus();
}

function openPanel(focus) {
  panel.hidden = false;
  toggle.setAttribute("aria-expanded", "true");
  focus?.focus();
}

toggle.onclick = () => {
  panel.hidden = !panel.hidden;
  toggle.setAttribute("aria-expanded", String(!panel.hidden));
};
byId("new-chat").onclick = () => leave(() => store.begin());

settings.onsubmit = (event) => event.preventDefault();
settings.oninput = () => {
  const { key, ...kept } = Object.fromEntries(new FormData(settings));
  store.settings = { ...store.settings, ...kept };
  store.key = key;
  store.save();
};
settings.elements.key.onchange = listModels;
model.onchange = () => {
  store.settings.model = model.value;
  store.save();
};

async function listModels() {
  try {
    const names = await api.models(store.key);
    model.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(store.settings.model)) model.value = store.settings.model;
    status.textContent = "";
  } catch (error) {
    status.textContent = error.message;
    if (error.status === 401) openPanel(settings.elements.key);
  }
}

for (const [name, value] of Object.entries(store.settings)) {
  const field = settings.elements[name];
  if (field) field.value = value;
}
settings.elements.key.value = store.key;
show();
fit();
listModels();
