// Chats and settings, in this browser only.

const KEY = "handmill";
const MOST_CHATS = 50;

/** A message as the page keeps it: `role`, `content`, and of answers `reasoning`, `calls`, `error`, `figures`. */

export class Store {
  constructor() {
    let saved = {};
    try {
      saved = JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
    } catch {
      // What cannot be read is left behind.
    }
    this.settings = saved.settings ?? {};
    this.chats = Array.isArray(saved.chats) ? saved.chats.filter((chat) => Array.isArray(chat?.messages)) : [];
    this.chat = this.chats.find((chat) => chat.id === saved.current) ?? this.chats[0] ?? this.begin();
  }

  /** The key that a server may ask for: it is kept no longer than the window. */
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    sessionStorage.setItem(KEY, key);
  }

  /** A new chat, or the current one where nothing is in it. */
  begin() {
    if (this.chat && this.chat.messages.length === 0) return this.chat;
    this.chat = { id: crypto.randomUUID?.() ?? String(Date.now()), messages: [] };
    this.chats.unshift(this.chat);
    return this.chat;
  }

  open(id) {
    this.chat = this.chats.find((chat) => chat.id === id) ?? this.chat;
    this.save();
  }

  remove(id) {
    this.chats = this.chats.filter((chat) => chat.id !== id);
    if (this.chat.id === id) {
      this.chat = this.chats[0];
      if (!this.chat) this.begin();
    }
    this.save();
  }

  /** The first words of a chat. */
  static title(chat) {
    const first = chat.messages.find((message) => message.role === "user")?.content ?? "";
    return first.trim().split("\n")[0].slice(0, 60) || "New chat";
  }

  save() {
    const kept = this.chats.slice(0, MOST_CHATS);
    const saved = { settings: this.settings, chats: kept, current: this.chat.id };
    // Where the browser has no room, the oldest chats go first.
    for (;;) {
      try {
        localStorage.setItem(KEY, JSON.stringify(saved));
        return true;
      } catch {
        const oldest = saved.chats.findLastIndex((chat) => chat.id !== this.chat.id);
        if (oldest < 0) return false;
        saved.chats.splice(oldest, 1);
      }
    }
  }
}
