// The part of Markdown that models write most, as elements. No text ever becomes HTML.

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** `code`, **strong** and *emphasised* text, and links to web pages. */
function inline(text) {
  const parts = [];
  const pattern = /`([^`\n]+)`|\*\*(\S(?:[^*]*\S)?)\*\*|\*(\S(?:[^*\n]*\S)?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    parts.push(text.slice(end, match.index));
    end = match.index + match[0].length;
    const [, code, strong, emphasised, words, link] = match;
    if (code !== undefined) {
      parts.push(element("code", code));
    } else if (strong !== undefined) {
      parts.push(element("strong", strong));
    } else if (emphasised !== undefined) {
      parts.push(element("em", emphasised));
    } else {
      const anchor = element("a", words);
      anchor.href = link;
      anchor.rel = "noreferrer noopener";
      anchor.target = "_blank";
      parts.push(anchor);
    }
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

const FENCE = /^\s*(`{3,}|~{3,})/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/;
const starts = [FENCE, HEADING, ITEM, /^\s*$/];

/** The blocks of a text. */
export function markdown(text) {
  const blocks = [];
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; ) {
    const fence = lines[i].match(FENCE);
    const heading = lines[i].match(HEADING);
    if (fence) {
      const code = [];
      for (i++; i < lines.length && !lines[i].trim().startsWith(fence[1]); i++) code.push(lines[i]);
      i++;
      blocks.push(element("pre", element("code", code.join("\n"))));
    } else if (heading) {
      // The page's own headings come before these.
      blocks.push(element(`h${Math.min(6, heading[1].length + 3)}`, ...inline(heading[2])));
      i++;
    } else if (ITEM.test(lines[i])) {
      const numbered = lines[i].match(ITEM)[1] !== undefined;
      const list = element(numbered ? "ol" : "ul");
      if (numbered) list.start = Number(lines[i].match(ITEM)[1]);
      for (; i < lines.length && ITEM.test(lines[i]); i++) {
        list.append(element("li", ...inline(lines[i].match(ITEM)[2])));
      }
      blocks.push(list);
    } else if (lines[i].trim() === "") {
      i++;
    } else {
      const words = [];
      for (; i < lines.length && !starts.some((start) => start.test(lines[i])); i++) words.push(lines[i]);
      const paragraph = element("p");
      words.forEach((line, n) => paragraph.append(...(n > 0 ? [element("br")] : []), ...inline(line)));
      blocks.push(paragraph);
    }
  }
  return blocks;
}
