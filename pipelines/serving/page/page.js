"use strict";
// The page of vidadapt's server: no framework, and nothing that is loaded from elsewhere.

const byId = (id) => document.getElementById(id);
const COLOURS = ["#0b5cad", "#9a4d00", "#2f6b2f", "#8a2d6b", "#4d4fa8", "#8a2b2b", "#1d6b73", "#5f5a12"];
const KEY = "vidadapt-token";
let chosen = [];
let limits = null;
let asked = 0; // of two answers under way, the later question's is shown

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers) });
  const body = await answer.json().catch(() => null);
  if (answer.status === 401) {
    byId("token-form").hidden = false;
    byId("token").focus();
  }
  if (!answer.ok && !(body && body.results)) {
    throw new Error(body && body.error ? body.error.message : `the server answered ${answer.status}`);
  }
  return body;
}

function say(text) { byId("status").textContent = text; }
function complain(error) {
  const lost = error instanceof TypeError;
  byId("error").textContent = lost ? "The server was not reached, or ended the connection." : `Error: ${error.message}`;
  say("");
}

function size(bytes) {
  return bytes >= 1048576 ? `${Math.round(bytes / 1048576)} MB` : `${bytes} bytes`;
}

async function introduce() {
  byId("error").textContent = "";
  try {
    const about = await ask("v1/model");
    limits = about.limits;
    const version = about.model.version ? `, version ${about.model.version}` : "";
    const classes = about.classes.length ? `${about.classes.length} trained classes` : "no classes of its own: type labels";
    byId("model").textContent = `${about.model.name}${version}: ${classes}, on ${about.device}`;
    byId("limits").textContent =
      `At most ${size(limits.max_bytes)}, ${limits.max_seconds} s a video and ${limits.max_videos} videos.`;
    byId("search").hidden = !about.search;
    byId("token-form").hidden = true;
  } catch (error) {
    complain(error);
  }
}

function labels() {
  const text = byId("labels").value.trim();
  // As in a CSV: a name with commas stands between double quotes.
  const found = text.match(/"[^"]*"|[^,\n]+/g) || [];
  return found.map((name) => name.trim().replace(/^"(.*)"$/, "$1").trim()).filter(Boolean);
}

async function predict() {
  if (!chosen.length) return;
  const number = ++asked;
  byId("error").textContent = "";
  const bytes = chosen.reduce((sum, file) => sum + file.size, 0);
  if (limits && bytes > limits.max_bytes) {
    complain(new Error(`the videos have ${size(bytes)}, over the limit of ${size(limits.max_bytes)}`));
    return;
  }
  const form = new FormData();
  for (const file of chosen) form.append("video", file);
  if (labels().length) form.append("labels", JSON.stringify(labels()));
  if (byId("timeline").checked) {
    form.append("window", byId("window").value);
    form.append("stride", byId("stride").value);
  }
  form.append("pictures", "true");
  say(`${chosen.length === 1 ? chosen[0].name : `${chosen.length} videos`}: sent, the answer is awaited…`);
  byId("again").disabled = true;
  try {
    const answer = await ask("v1/predict", { method: "POST", body: form });
    if (number === asked) show(answer);
  } catch (error) {
    if (number === asked) complain(error);
  } finally {
    byId("again").disabled = false;
  }
}

function show(answer) {
  byId("results").replaceChildren(...answer.results.map(shown));
  const read = answer.results.filter((row) => row.status !== "failed");
  const first = read[0] ? `${read[0].video}: ${read[0].label}, ${percent(read[0].probability)}` : "There is no answer.";
  say(answer.results.length === 1 || !read[0] ? first : `${read.length} of ${answer.results.length} answered. ${first}`);
  byId("results").focus({ preventScroll: true });
}

function percent(share) { return `${(100 * share).toFixed(1)} %`; }

function shown(row) {
  const box = element("article", {}, element("h2", { textContent: row.video }));
  if (row.status === "failed") {
    box.append(element("p", { className: "failed", textContent: row.reason }));
    return box;
  }
  if (row.status === "none") {
    box.append(element("p", { textContent: "None of these: even the most probable class is too improbable." }));
  }
  if (row.pictures) {
    const strip = element("div", { className: "pictures", tabIndex: 0, ariaLabel: "Pictures of the video" });
    strip.setAttribute("role", "group");
    row.pictures.forEach((source, i) =>
      strip.append(element("img", { src: source, alt: `picture ${i + 1} of ${row.pictures.length}` })));
    box.append(strip);
  }
  box.append(bars(row.topk));
  if (row.timeline) box.append(...timeline(row));
  return box;
}

function bars(topk) {
  const table = element("table", {}, element("caption", { className: "hint", textContent: "Most probable actions" }));
  for (const one of topk) {
    const fill = element("i");
    fill.style.width = `${100 * one.probability}%`;
    const bar = element("div", { className: "bar" }, fill);
    bar.setAttribute("aria-hidden", "true");
    const name = element("th", { textContent: one.label, scope: "row" });
    table.append(element("tr", {}, name, element("td", {}, bar),
      element("td", { className: "share", textContent: percent(one.probability) })));
  }
  return table;
}

function timeline(row) {
  const { segments, windows } = row.timeline;
  if (!segments.length) return [element("p", { textContent: "No window could be read." })];
  const names = [...new Set(segments.map((part) => part.label))];
  const strip = element("div", { className: "strip" });
  strip.setAttribute("aria-hidden", "true"); // the table below says the same
  for (const part of segments) {
    const block = element("span", { textContent: part.label, title: `${part.start}-${part.end} s: ${part.label}` });
    block.style.flex = `${part.end - part.start} 1 0`;
    block.style.background = COLOURS[names.indexOf(part.label) % COLOURS.length];
    strip.append(block);
  }
  const table = element("table", {}, element("caption", { className: "hint", textContent: "Timeline" }));
  for (const part of segments) {
    table.append(element("tr", {},
      element("th", { textContent: `${part.start.toFixed(1)} to ${part.end.toFixed(1)} s`, scope: "row" }),
      element("td", { textContent: part.label }),
      element("td", { className: "share", textContent: percent(part.probability) })));
  }
  const seen = windows.filter((one) => one.picture);
  const pictures = element("div", { className: "pictures", tabIndex: 0, ariaLabel: "Pictures of the timeline" });
  pictures.setAttribute("role", "group");
  for (const one of seen) {
    const text = `${one.start.toFixed(1)} s: ${one.label}`;
    pictures.append(element("img", { src: one.picture, alt: text, title: text, loading: "lazy" }));
  }
  return [strip, table, pictures];
}

async function search(event) {
  event.preventDefault();
  byId("error").textContent = "";
  try {
    const body = JSON.stringify({ text: byId("query").value });
    const answer = await ask("v1/search", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    byId("hits").replaceChildren(...answer.results.map((hit) => {
      const part = hit.start === null ? "" : `, ${hit.start} to ${hit.end} s`;
      return element("li", { textContent: `${hit.video}${part} (${hit.score.toFixed(3)})` });
    }));
  } catch (error) {
    complain(error);
  }
}

function choose(files) {
  if (!files.length) return;
  chosen = [...files];
  predict();
}

byId("files").addEventListener("change", (event) => {
  choose(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
byId("form").addEventListener("submit", (event) => { event.preventDefault(); predict(); });
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("token").value.trim());
  introduce();
});
byId("search").addEventListener("submit", search);
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files);
  });
}
introduce();
