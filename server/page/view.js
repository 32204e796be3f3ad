// Messages as elements.

import { markdown } from "./markdown.js";

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const NAMES = { user: "You", assistant: "Answer" };

/** The element of a message. `actions` are called with it: `edit(text)`, and of answers `again()`. */
export class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.heading = element("h3", { textContent: NAMES[message.role] ?? message.role });
    this.parts = element("div");
    this.buttons = element("div", { className: "actions" });
    this.root = element("article", { className: `message ${message.role}` }, this.heading, this.parts, this.buttons);
    this.update();
  }

  /** Shows the message as it is now; with `running` it is not complete yet. */
  update(running = false) {
    const { message } = this;
    const open = this.parts.querySelector(".reasoning")?.open ?? false;
    const parts = [];
    if (message.reasoning) {
      const thinks = running && !message.content && !message.calls?.length;
      const summary = element("summary", { textContent: thinks ? "Reasoning …" : "Reasoning" });
      parts.push(element("details", { className: "reasoning", open }, summary, element("div", { textContent: message.reasoning })));
    }
    if (message.content) {
      const shown = message.role === "user" ? [message.content] : markdown(message.content);
      parts.push(element("div", { className: "content" }, ...shown));
    }
    for (const call of message.calls ?? []) {
      const summary = element("summary", { textContent: `Calls the tool ${call.name}` });
      parts.push(element("details", { className: "tool", open: true }, summary, element("pre", { textContent: pretty(call.arguments) })));
    }
    if (message.error) parts.push(element("p", { className: "error", role: "alert", textContent: message.error }));
    if (message.figures) parts.push(element("p", { className: "figures", textContent: message.figures }));
    this.parts.replaceChildren(...parts);
    this.buttons.replaceChildren(...(running ? [] : this.makeButtons()));
  }

  makeButtons() {
    const button = (text, label, onclick) => {
      const made = element("button", { type: "button", textContent: text, onclick });
      made.setAttribute("aria-label", label);
      return made;
    };
    const whose = this.message.role === "user" ? "your message" : "the answer";
    const buttons = [button("Edit", `Edit ${whose}`, () => this.edit())];
    if (navigator.clipboard) {
      const copy = button("Copy", `Copy ${whose}`, async () => {
        await navigator.clipboard.writeText(this.message.content);
        copy.textContent = "Copied";
      });
      buttons.push(copy);
    }
    if (this.message.role === "assistant") {
      buttons.push(button("Answer again", "Answer the message above again", () => this.actions.again()));
    }
    return buttons;
  }

  /** Puts a box in the place of the text. */
  edit() {
    const area = element("textarea", { value: this.message.content });
    area.setAttribute("aria-label", "New text");
    const cancel = () => {
      this.update();
      this.buttons.querySelector("button")?.focus();
    };
    const save = () => this.actions.edit(area.value);
    area.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        save();
      }
    };
    this.parts.replaceChildren(area);
    this.buttons.replaceChildren(
      element("button", { type: "button", textContent: this.message.role === "user" ? "Send" : "Keep", onclick: save }),
      element("button", { type: "button", textContent: "Cancel", onclick: cancel }),
    );
    area.focus();
  }
}

function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
