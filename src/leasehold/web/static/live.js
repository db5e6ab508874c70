// What is live on every page: it is asked for again when something changed, times are shown in
// the reader's zone, and a dot says whether the page is live. Without this file all of it works.
"use strict";

(() => {
  const PACE_MS = 1000;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const older = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });

  const relative = (at) => {
    const seconds = Math.round((at - Date.now()) / 1000);
    const size = Math.abs(seconds);
    if (size < 60) return ago.format(seconds, "second");
    if (size < 3600) return ago.format(Math.round(seconds / 60), "minute");
    if (size < 86400) return `${ago.format(Math.round(seconds / 3600), "hour")}, ${today.format(at)}`;
    return older.format(at);
  };

  const showTimes = () => {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const at = new Date(element.getAttribute("datetime"));
      if (Number.isNaN(at.getTime())) continue;
      const text = relative(at);
      if (element.textContent !== text) element.textContent = text;
      const title = `${exact.format(at)} (${zone}) · ${element.getAttribute("datetime")}`;
      if (element.title !== title) element.title = title;
    }
  };

  const say = (state, words) => {
    const dot = document.getElementById("connection");
    if (!dot || dot.dataset.state === state) return;
    dot.dataset.state = state;
    dot.title = words;
    dot.firstElementChild.textContent = words;
  };

  // One refresh now, and one more if anything changed meanwhile: never more than one a second.
  let last = 0;
  let waiting = null;
  const refresh = () => {
    if (document.hidden || waiting !== null) return;
    const wait = Math.max(0, last + PACE_MS - performance.now());
    waiting = setTimeout(() => {
      waiting = null;
      last = performance.now();
      const live = document.getElementById("live");
      if (live && window.htmx) window.htmx.trigger(live, "refresh");
    }, wait);
  };

  const watch = () => {
    const { live, place } = document.body.dataset;
    if (!live) return;
    const source = new EventSource(`${live}?place=${encodeURIComponent(place)}`);
    source.addEventListener("open", () => say("on", "live: changes appear by themselves"));
    source.addEventListener("message", (event) => {
      document.body.dataset.place = event.lastEventId;
      refresh();
    });
    source.addEventListener("error", () => {
      say("lost", source.readyState === EventSource.CLOSED ? "not live: load the page again" : "not live: trying again");
    });
    document.addEventListener("visibilitychange", refresh);
    window.addEventListener("pagehide", () => source.close());
    window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  };

  // What a person has opened, or focused, stays as it is.
  if (window.Idiomorph) {
    Object.assign(window.Idiomorph.defaults, { ignoreActiveValue: true });
    const { callbacks } = window.Idiomorph.defaults;
    callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.nodeName === "DETAILS");
    // Output has a stream of its own (output.js).
    callbacks.beforeNodeMorphed = (node) => node.id !== "output-card";
  }
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["Leasehold-Place"] = document.body.dataset.place || "";
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:afterSwap", showTimes);
  document.addEventListener("htmx:sendError", () => say("lost", "not live: the server does not answer"));

  showTimes();
  setInterval(showTimes, 10000);
  watch();
})();
