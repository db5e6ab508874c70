// The output of a run that goes on: appended where the page ends, colours and all.
// Nothing that a command wrote is ever taken for markup: it becomes text nodes.
"use strict";

(() => {
  const LINE_CHARS = 16 * 1024;
  const KEPT_CHARS = 1024 * 1024;
  const SEQUENCE = /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?=\n)/g;
  const HALF = /\x1b(?:\[[0-?]*[ -/]*)?$/;
  const box = document.getElementById("outputs");
  if (!box || !box.dataset.live) return;

  const after = (look, codes) => {
    let next = { ...look };
    const numbers = codes.split(/[;:]/).map((code) => Number.parseInt(code || "0", 10) || 0);
    while (numbers.length) {
      const n = numbers.shift();
      if (n === 38 || n === 48) {
        const kind = numbers.shift();
        const taken = numbers.splice(0, kind === 2 ? 3 : 1);
        if (kind === 5 && taken[0] < 16) next[n === 38 ? "c" : "b"] = String(taken[0]);
      } else if (n === 0) next = {};
      else if (n === 1) next.bold = true;
      else if (n === 2) next.dim = true;
      else if (n === 3) next.italic = true;
      else if (n === 4) next.underline = true;
      else if (n === 22) { delete next.bold; delete next.dim; }
      else if (n === 23) delete next.italic;
      else if (n === 24) delete next.underline;
      else if (n === 39) delete next.c;
      else if (n === 49) delete next.b;
      else if (n >= 30 && n < 38) next.c = String(n - 30);
      else if (n >= 90 && n < 98) next.c = String(n - 82);
      else if (n >= 40 && n < 48) next.b = String(n - 40);
      else if (n >= 100 && n < 108) next.b = String(n - 92);
    }
    return next;
  };

  const classes = (look) => Object.entries(look)
    .map(([name, value]) => (value === true ? name : name + value)).join(" ");

  const put = (pre, look, text) => {
    const names = classes(look);
    let node = document.createTextNode(text);
    if (names) {
      const span = document.createElement("span");
      span.className = names;
      span.append(node);
      node = span;
    }
    pre.append(node);
  };

  const states = new WeakMap();
  const append = (pre, text) => {
    const state = states.get(pre) || { look: {}, half: "", line: 0, kept: pre.textContent.length };
    states.set(pre, state);
    text = state.half + text;
    const half = HALF.exec(text);
    state.half = half && half[0].length < 64 ? half[0] : "";
    if (state.half) text = text.slice(0, -state.half.length);
    const write = (piece) => {
      for (const [index, line] of piece.split("\n").entries()) {
        if (index) { state.line = 0; put(pre, {}, "\n"); }
        const room = Math.max(0, LINE_CHARS - state.line);
        const shown = line.slice(0, room);
        if (shown) put(pre, state.look, shown);
        if (line.length > room && room) put(pre, {}, " … (the rest of this line is in the download)");
        state.line += line.length;
        state.kept += shown.length;
      }
    };
    let at = 0;
    for (const found of text.matchAll(SEQUENCE)) {
      if (found.index > at) write(text.slice(at, found.index));
      at = found.index + found[0].length;
      if (found[1] !== undefined) state.look = after(state.look, found[1]);
    }
    if (at < text.length) write(text.slice(at));
    while (state.kept > KEPT_CHARS && pre.firstChild) {
      state.kept -= pre.firstChild.textContent.length;
      pre.firstChild.remove();
    }
  };

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  };

  const startOf = (data) => {
    let found = box.querySelector(`[data-start="${Number(data.start)}"]`);
    if (!found) {
      found = element("section", "start");
      found.dataset.start = data.start;
      found.setAttribute("aria-label", `Start ${data.start}`);
      found.append(element("h3", "", `Start ${data.start}${data.setup ? ", set-up" : ""} `));
      found.firstChild.append(element("small", "", "running"));
      box.append(found);
    }
    return found;
  };

  const preOf = (data) => {
    const start = startOf(data);
    const name = data.stream === "stderr" ? "stderr" : "stdout";
    let found = start.querySelector(`[data-stream="${name}"] pre`);
    if (!found) {
      const stream = element("div", `stream ${name}`);
      stream.dataset.stream = name;
      const head = element("p", "stream-head");
      const link = element("a", "", `Download ${name}`);
      link.href = `${box.dataset.download}?start=${Number(data.start)}&stream=${name}`;
      link.setAttribute("download", "");
      head.append(element("span", "", name), link);
      found = element("pre");
      found.tabIndex = 0;
      found.setAttribute("role", "region");
      found.setAttribute("aria-label", `${name} of start ${Number(data.start)}`);
      stream.append(head, found);
      start.append(stream);
    }
    return found;
  };

  const follow = document.getElementById("follow");
  follow.closest("label").hidden = false;
  const source = new EventSource(box.dataset.live);
  source.addEventListener("message", (event) => {
    const data = JSON.parse(event.data);
    document.getElementById("silent")?.remove();
    const pre = preOf(data);
    append(pre, data.text);
    if (follow.checked) pre.scrollTop = pre.scrollHeight;
  });
  source.addEventListener("exit", (event) => {
    const data = JSON.parse(event.data);
    const small = startOf(data).querySelector("h3 small");
    const how = data.signal ? `, signal ${data.signal}` : (data.exit_code === null ? "" : `, exit code ${data.exit_code}`);
    small.textContent = `${data.status}${how}`;
  });
  source.addEventListener("end", () => {
    const silent = document.getElementById("silent");
    if (silent) silent.textContent = "It wrote nothing.";
  });
  const close = () => { source.close(); follow.closest("label").hidden = true; };
  source.addEventListener("end", close);
  source.addEventListener("closed", (event) => {
    // Who may not stay does not come back; whoever is sent away for now does, by itself.
    if (JSON.parse(event.data).code === "unauthenticated") close();
  });
  window.addEventListener("pagehide", () => source.close());
})();
