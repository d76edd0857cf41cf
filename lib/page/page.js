// Fetches the page anew and changes in place what differs: numbers and charts are the server's, this makes none.
// Beside that: filters without a reload, and what a chart says where it is pointed at.

const EVERY_MS = 15_000;
const LOADING_MS = 1_500;
// A server that is suspended never answers: then it is asked again, and the page says so.
const PATIENCE_MS = 60_000;
const USUAL = { stack: "class" };
const PARTS = [".top", "main", "footer"];

let etag = document.querySelector("meta[name=etag]")?.content ?? "";
let newest = 0;
let timer = 0;
let misses = 0;

const $ = (selector, inside = document) => inside.querySelector(selector);

// Changing in place.

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id : "");
const alike = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== 1) {
    old.data = fresh.data;
    return;
  }
  if (old.nodeName === "SELECT" && old === document.activeElement) return;
  attributes(old, fresh);
  children(old, fresh);
  if (old.nodeName === "INPUT") old.checked = fresh.hasAttribute("checked");
  if (old.nodeName === "SELECT") old.value = $("option[selected]", fresh)?.value ?? "";
}

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    const kept = name === "open" && old.nodeName === "DETAILS";
    if (!fresh.hasAttribute(name) && !kept) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

function children(old, fresh) {
  const keyed = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  const wantedKeys = new Set([...fresh.childNodes].map(keyOf));
  // How many nodes of a kind there are too many: those go, and what stands behind them stays what it is.
  const surplus = {};
  for (const node of old.childNodes) if (!keyOf(node)) surplus[node.nodeName] = (surplus[node.nodeName] ?? 0) + 1;
  for (const node of fresh.childNodes) if (!keyOf(node)) surplus[node.nodeName] = (surplus[node.nodeName] ?? 0) - 1;
  const gone = (node) => (keyOf(node) ? !wantedKeys.has(keyOf(node)) : surplus[node.nodeName] > 0);
  let at = old.firstChild;
  const drop = () => {
    const next = at.nextSibling;
    if (!keyOf(at)) surplus[at.nodeName] -= 1;
    at.remove();
    at = next;
  };
  for (const wanted of fresh.childNodes) {
    while (at && !alike(at, wanted) && gone(at)) drop();
    const known = keyOf(wanted) ? keyed.get(keyOf(wanted)) : at;
    if (known && alike(known, wanted)) {
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      morph(known, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) drop();
}

// What a script can do better than a browser alone: said to the page that is there and to each that comes.
function prepared(page) {
  for (const title of page.querySelectorAll(".hit > title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  for (const chart of page.querySelectorAll(".area")) chart.setAttribute("tabindex", "0");
  for (const head of page.querySelectorAll(".chart > header")) {
    const name = $("h2", head).textContent;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "png", textContent: "PNG" });
    button.setAttribute("aria-label", `${name}, as PNG`);
    if (!$(".png", head)) $("h2", head).after(button);
  }
  $("#filters", page)?.classList.add("scripted");
  $("main", page).tabIndex = -1;
  return page;
}

function show(html) {
  const page = prepared(new DOMParser().parseFromString(html, "text/html"));
  document.title = page.title;
  for (const part of PARTS) {
    const [old, fresh] = [$(part), $(part, page)];
    if (old && fresh) morph(old, fresh);
  }
  pointAgain();
}

// Fetching.

async function load(address, moved) {
  const mine = ++newest;
  clearTimeout(timer);
  if (moved) $("main").setAttribute("aria-busy", "true");
  const patience = new AbortController();
  const end = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const headers = { Accept: "text/html" };
    if (!moved && etag) headers["If-None-Match"] = etag;
    const answer = await fetch(address, { headers, cache: "no-store", redirect: "manual", signal: patience.signal });
    const text = await answer.text();
    if (mine !== newest) return;
    misses = 0;
    if (answer.ok) {
      show(text);
      etag = answer.headers.get("ETag") ?? ""; // only now: what was not shown must be sent again
      say("");
    } else if (answer.status === 304) say("");
    else if (answer.status === 401) say("This session has ended. Run tok-dash url and open its link.", "lost");
    else refused(text);
  } catch {
    if (mine !== newest) return;
    misses += 1;
    if (moved || misses > 1) say("tok-dash does not answer; these numbers stay as they were. Start it again: tok-dash", "lost");
  } finally {
    clearTimeout(end);
    if (mine === newest) {
      $("main").removeAttribute("aria-busy");
      later();
    }
  }
}

function refused(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const said = [$("h1", page)?.textContent, $("p", page)?.textContent].filter(Boolean).join(". ");
  say(said || "The numbers could not be read. Run tok-status to see why.", "behind");
}

function say(text, kind = "") {
  const [status, message] = [$("#status"), $("#message")];
  if (message.textContent !== text) message.textContent = text;
  status.className = kind;
}

function later() {
  clearTimeout(timer);
  const wait = $("main").dataset.state === "loading" || $("[data-pending]") ? LOADING_MS : EVERY_MS;
  timer = setTimeout(() => (document.hidden ? later() : load(location.href)), wait);
}

// Which of the pages an address leads to: all projects, a session or a turn.
const levelOf = (address) => {
  const query = new URL(address, location.href).searchParams;
  return `${query.get("session") ?? ""} ${query.get("turn") ?? ""}`;
};

async function go(address) {
  const other = levelOf(address) !== levelOf(location.href);
  history.replaceState({ y: scrollY }, "");
  history.pushState(null, "", address);
  await load(address, true);
  const place = new URL(address, location.href).hash;
  if (place) document.getElementById(place.slice(1))?.scrollIntoView({ block: "nearest" });
  else if (other) arrive(0);
}

// Another page: its beginning, for the eye and for a screen reader.
function arrive(y) {
  scrollTo(0, y);
  $("main").focus({ preventScroll: true });
}

// Another span ends now, whatever the one before ended with.
function asked(changed) {
  const query = new URLSearchParams(new FormData($("#filters")));
  if (changed === "since") query.delete("until");
  for (const [name, value] of [...query]) if (!value || value === USUAL[name]) query.delete(name);
  return query.size ? `/dashboard?${query}` : "/dashboard";
}

document.addEventListener("change", (event) => {
  if (event.target.form?.id === "filters") go(asked(event.target.name));
});
document.addEventListener("submit", (event) => {
  event.preventDefault();
  go(asked());
});
document.addEventListener("click", (event) => {
  if (event.target.className === "png") save(event.target.closest(".chart"));
  const link = event.target.closest?.('a[href^="/dashboard"]');
  if (event.target.dataset?.go && !event.button) go(event.target.dataset.go);
  if (!link || link.hasAttribute("download") || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
history.scrollRestoration = "manual";
addEventListener("popstate", async (event) => {
  await load(location.href, true);
  arrive(event.state?.y ?? 0);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) load(location.href);
});

// A chart as a picture: what is seen of it, with its heading and legend, drawn by the browser at twice its size.

const SVG = "http://www.w3.org/2000/svg";
const LOOKS = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "text-anchor", "font-size", "font-weight", "font-family"];

function drawn(node) {
  const copy = node.cloneNode(false);
  const style = getComputedStyle(node);
  if (style.display === "none" || ["title", "script"].includes(node.nodeName)) return null;
  if (node.nodeType === 1) for (const name of LOOKS) copy.setAttribute(name, style.getPropertyValue(name));
  for (const child of node.childNodes) {
    const part = child.nodeType === 1 ? drawn(child) : child.cloneNode();
    if (part) copy.append(part);
  }
  return copy;
}

function written(text, x, y, like, root) {
  const node = document.createElementNS(SVG, "text");
  const style = getComputedStyle(like);
  const looks = { x, y, fill: style.color, "font-size": style.fontSize, "font-weight": style.fontWeight, "font-family": style.fontFamily };
  for (const [name, value] of Object.entries(looks)) node.setAttribute(name, value);
  node.textContent = text;
  root.append(node);
}

// The lines into which the browser has broken a text, each with where it stands.
function lines(node) {
  const found = [];
  const range = document.createRange();
  const text = node.firstChild;
  for (const { 0: word, index } of text?.nodeType === 3 ? text.data.matchAll(/\S+/g) : []) {
    range.setStart(text, index);
    range.setEnd(text, index + word.length);
    const at = range.getBoundingClientRect();
    const last = found.at(-1);
    if (last && Math.abs(last[1].top - at.top) < 4) last[0] += ` ${word}`;
    else found.push([word, at]);
  }
  return found;
}

function picture(figure) {
  const box = figure.getBoundingClientRect();
  const root = document.createElementNS(SVG, "svg");
  const back = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ width: box.width, height: box.height })) {
    root.setAttribute(name, value);
    back.setAttribute(name, value);
  }
  back.setAttribute("fill", getComputedStyle(figure).backgroundColor);
  root.append(back);
  for (const part of figure.querySelectorAll("svg.tok")) {
    const at = part.getBoundingClientRect();
    const copy = drawn(part);
    if (!copy || !at.width) continue;
    for (const [name, value] of Object.entries({ x: at.left - box.left, y: at.top - box.top, width: at.width, height: at.height })) {
      copy.setAttribute(name, value);
    }
    copy.setAttribute("overflow", "visible");
    root.append(copy);
  }
  for (const text of figure.querySelectorAll("h2, .sub, .legend span, .legend a, .legend b")) {
    for (const [line, at] of lines(text)) written(line, at.left - box.left, at.bottom - box.top - at.height * 0.24, text, root);
  }
  return [new XMLSerializer().serializeToString(root), box];
}

async function save(figure) {
  const [text, box] = picture(figure);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * box.width, height: 2 * box.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const link = document.createElement("a");
  link.download = `tokenops-${figure.dataset.key.replace(/[^A-Za-z0-9]+/g, "-")}.png`;
  link.href = canvas.toDataURL("image/png");
  link.click();
}

// What a chart says.

const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
const live = Object.assign(document.createElement("p"), { id: "said", className: "away", role: "status" });
document.body.append(tip, live);
let pointed = null; // the chart that the keys are in, and which of its places

function tell(hit, x, y) {
  tip.textContent = hit.dataset.tip;
  tip.hidden = false;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 12;
  tip.style.left = `${scrollX + Math.max(8, Math.min(x + 14, room))}px`;
  tip.style.top = `${scrollY + Math.max(8, y - tip.offsetHeight - 12)}px`;
}

function point(event) {
  const hit = event.target.closest?.(".hit");
  if (hit?.dataset.tip) tell(hit, event.clientX, event.clientY);
  else if (!pointed) tip.hidden = true;
}
document.addEventListener("pointermove", point, { passive: true });
document.addEventListener("pointerdown", point, { passive: true });
addEventListener("scroll", () => pointed || (tip.hidden = true), { passive: true });

function mark(chart, at) {
  for (const one of document.querySelectorAll(".hit.here")) one.classList.remove("here");
  const hits = chart.querySelectorAll(".hit");
  if (!hits.length) return;
  const place = Math.max(0, Math.min(at, hits.length - 1));
  pointed = { chart, at: place };
  const hit = hits[place];
  hit.classList.add("here");
  const box = hit.getBoundingClientRect();
  tell(hit, box.left + box.width / 2, box.top + 40);
  const spoken = hit.dataset.tip.replaceAll("\n", ", ");
  if (live.textContent !== spoken) live.textContent = spoken;
}

function pointAgain() {
  if (pointed?.chart.isConnected) mark(pointed.chart, pointed.at);
  else tip.hidden = true;
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -1e6, End: 1e6 };
document.addEventListener("keydown", (event) => {
  const chart = event.target.closest?.(".area");
  if (event.key === "Escape") leave();
  const hit = pointed?.chart === chart && chart?.querySelectorAll(".hit")[pointed.at];
  if (event.key === "Enter" && hit?.dataset.go) go(hit.dataset.go);
  if (!chart || !(event.key in STEPS) || event.metaKey || event.ctrlKey || event.altKey) return;
  event.preventDefault();
  const from = pointed?.chart === chart ? pointed.at : event.key === "ArrowLeft" ? chart.querySelectorAll(".hit").length : -1;
  mark(chart, from + STEPS[event.key]);
});
function leave() {
  pointed = null;
  tip.hidden = true;
  live.textContent = "";
  for (const one of document.querySelectorAll(".hit.here")) one.classList.remove("here");
}
document.addEventListener("focusout", (event) => event.target.closest?.(".area") && leave());

// First the page is painted as it came; what a script adds needs no hurry.
requestAnimationFrame(() => setTimeout(() => prepared(document)));
later();
