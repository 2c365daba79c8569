// Keeps the page current. Once a second it asks whether the status changed, and if so it fetches
// the page that the server rendered. It changes only what differs, so that a hover, a selection,
// an open table and the scroll position survive.
"use strict";

const EVERY_MS = 1000;
const LOST_AFTER_MS = 5000;
const TIMEOUT_MS = 8000;

let etag = null;
let contactAt = Date.now();
// The server's clock minus ours. Ages are shown by the server's clock.
let skewMs = 0;

function ago(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showAges() {
  const now = Date.now() + skewMs;
  for (const time of document.querySelectorAll("main time")) {
    const at = Date.parse(time.dateTime);
    if (at > 0) setText(time, ago((now - at) / 1000));
  }
  const contact = document.getElementById("contact");
  const silent = Date.now() - contactAt;
  contact.dataset.level = silent < LOST_AFTER_MS ? "good" : "bad";
  setText(contact, silent < LOST_AFTER_MS ? "live" : `no answer for ${Math.floor(silent / 1000)} s; what is shown is old`);
}

function sameKind(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

function morph(node, wanted) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !(node.nodeName === "DETAILS" && name === "open")) node.removeAttribute(name);
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  // The text of a time is its age, which showAges writes.
  if (node.nodeName === "TIME") return;
  const have = [...node.childNodes];
  const want = [...wanted.childNodes];
  want.forEach((child, i) => {
    if (i >= have.length) node.append(document.importNode(child, true));
    else if (sameKind(have[i], child)) morph(have[i], child);
    else have[i].replaceWith(document.importNode(child, true));
  });
  have.slice(want.length).forEach((child) => child.remove());
}

async function ask(path, options) {
  return fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS), ...options });
}

async function refresh() {
  const known = await ask("/api/v1/status", { method: "HEAD", headers: etag ? { "If-None-Match": etag } : {} });
  const date = Date.parse(known.headers.get("Date") ?? "");
  if (date > 0 && Math.abs(date - Date.now() - skewMs) > 2000) skewMs = date - Date.now();
  if (known.status === 304) {
    contactAt = Date.now();
    return;
  }
  if (!known.ok) return;
  const answer = await ask("/");
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  morph(document.getElementById("main"), fresh.getElementById("main"));
  showCursor();
  document.title = fresh.title;
  etag = answer.headers.get("ETag");
  contactAt = Date.now();
}

async function keepCurrent() {
  try {
    if (!document.hidden) await refresh();
  } catch {
    // The server is away or slow: showAges says so, and the next second asks again.
  }
  showAges();
  setTimeout(keepCurrent, EVERY_MS);
}

// The link for the run's owner ends in #owner=KEY. The key leaves the address bar, so that a
// screenshot or a copied address does not hold it, and stays for this tab.
async function showInvitation() {
  const given = /^#owner=([0-9a-f]+)$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem("owner", given[1]);
    history.replaceState(null, "", location.pathname);
  }
  const key = sessionStorage.getItem("owner");
  if (!key) return;
  const answer = await ask("/api/v1/invitation", { headers: { "X-HyperGPU-Owner": key } });
  if (!answer.ok) return;
  const { command, terms } = await answer.json();
  setText(document.getElementById("invitation-command"), command);
  setText(document.getElementById("invitation-terms"), terms);
  const copy = document.getElementById("invitation-copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command);
    setText(copy, "Copied");
  });
  document.getElementById("invitation").hidden = false;
}

// One cursor for all charts: each point has its time, and every chart shows its point nearest to it.
let cursorAt = null;

function nearest(svg, at) {
  let best = null;
  for (const hit of svg.querySelectorAll(".hit[data-at]")) {
    if (!best || Math.abs(hit.dataset.at - at) < Math.abs(best.dataset.at - at)) best = hit;
  }
  return best;
}

function showCursor() {
  for (const figure of document.querySelectorAll("figure.chart")) {
    const svg = figure.querySelector("svg");
    const told = figure.querySelector("p.told");
    if (!svg || !told) continue;
    for (const hit of svg.querySelectorAll(".hit.at")) hit.classList.remove("at");
    const hit = cursorAt === null ? null : nearest(svg, cursorAt);
    if (hit) hit.classList.add("at");
    setText(told, hit ? hit.querySelector("title").textContent : svg.querySelector("desc").textContent);
  }
}

document.addEventListener("pointerover", (event) => {
  const hit = event.target.closest?.(".hit[data-at]");
  if (!hit && cursorAt === null) return;
  cursorAt = hit ? Number(hit.dataset.at) : null;
  showCursor();
});
document.addEventListener("keydown", (event) => {
  const svg = event.target.closest?.("figure.chart svg");
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!svg || (!step && event.key !== "Escape")) return;
  const hits = [...svg.querySelectorAll(".hit[data-at]")];
  const here = cursorAt === null ? hits.length : hits.indexOf(nearest(svg, cursorAt));
  const next = hits[Math.min(Math.max(here + (step ?? 0), 0), hits.length - 1)];
  cursorAt = step && next ? Number(next.dataset.at) : null;
  showCursor();
  event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copies]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
  setText(button, "Copied");
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) contactAt = Date.now();
});
setInterval(showAges, EVERY_MS);
keepCurrent();
showInvitation().catch(() => {});
