// Searches the output that a run's page shows. Nothing in the page is changed for it: what is
// found is highlighted, so that colours and what comes later stay as they are.
"use strict";

(() => {
  const MOST = 1000;
  const AGAIN_MS = 300;
  const box = document.getElementById("outputs");
  const tool = document.getElementById("search-tool");
  if (!box || !tool || !window.CSS?.highlights) return;
  tool.hidden = false;
  const input = tool.querySelector("input");
  const said = tool.querySelector("output");
  let found = [];
  let at = 0;

  // A word may lie across pieces of several colours.
  const within = (pre, wanted) => {
    const walker = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
    const nodes = [];
    let text = "";
    while (walker.nextNode()) {
      nodes.push([text.length, walker.currentNode]);
      text += walker.currentNode.data;
    }
    const lower = text.toLowerCase();
    // Of few letters the small one is longer; then the case counts.
    const searched = lower.length === text.length ? lower : text;
    let index = 0;
    const place = (offset) => {
      while (index + 1 < nodes.length && nodes[index + 1][0] <= offset) index += 1;
      return [nodes[index][1], offset - nodes[index][0]];
    };
    let from = searched.indexOf(wanted);
    while (from >= 0 && found.length < MOST) {
      const range = document.createRange();
      range.setStart(...place(from));
      const [node, length] = place(from + wanted.length - 1);
      range.setEnd(node, length + 1);
      found.push(range);
      from = searched.indexOf(wanted, from + wanted.length);
    }
  };

  const show = (jump) => {
    at = Math.min(at, Math.max(0, found.length - 1));
    CSS.highlights.set("found", new Highlight(...found));
    CSS.highlights.set("found-now", new Highlight(...found.slice(at, at + 1)));
    said.textContent = input.value ? `${found.length ? at + 1 : 0} of ${found.length}${found.length === MOST ? "+" : ""}` : "";
    if (!jump || !found.length) return;
    const follow = document.getElementById("follow");
    if (follow) follow.checked = false;
    const pre = found[at].startContainer.parentElement.closest("pre");
    pre.scrollIntoView({ block: "nearest" });
    pre.scrollTop += found[at].getBoundingClientRect().top - pre.getBoundingClientRect().top - pre.clientHeight / 2;
  };

  const find = (jump) => {
    found = [];
    const wanted = input.value.toLowerCase();
    if (wanted) for (const pre of box.querySelectorAll("pre")) within(pre, wanted);
    show(jump);
  };

  input.addEventListener("input", () => { at = 0; find(true); });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !found.length) return;
    event.preventDefault();
    at = (at + (event.shiftKey ? found.length - 1 : 1)) % found.length;
    show(true);
  });
  let timer = 0;
  new MutationObserver(() => {
    if (!input.value || timer) return;
    timer = setTimeout(() => { timer = 0; find(false); }, AGAIN_MS);
  }).observe(box, { childList: true, subtree: true, characterData: true });
})();
