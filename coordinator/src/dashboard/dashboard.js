// The dashboard: the list of builds, and one build as it goes.

const main = document.getElementById("main");
const login = document.getElementById("login");
const SEGMENTS = ["queue", "parked", "fetch", "run", "snapshot", "upload"];
const NAMES = { queue: "queued", parked: "waited for files", fetch: "fetched", run: "ran", snapshot: "packed", upload: "uploaded" };
let stop = new AbortController();

function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem("token", given);
    history.replaceState(null, "", "#builds");
  }
  return sessionStorage.getItem("token");
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

async function call(path, options = {}) {
  const headers = { authorization: `Bearer ${token()}`, ...options.headers };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    show();
    throw new Error("not logged in");
  }
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer;
}

/** Server-Sent Events with a token, which EventSource cannot send. */
async function* events(path, signal) {
  const answer = await call(path, { signal, headers: { accept: "text/event-stream" } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const event = { name: "message", data: "" };
      for (const line of rest.slice(0, end).split("\n")) {
        if (line.startsWith("event: ")) event.name = line.slice(7);
        if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      if (event.data) yield event;
    }
  }
}

const seconds = (millis) => (millis < 60000 ? `${(millis / 1000).toFixed(1)} s` : `${Math.floor(millis / 60000)} m ${Math.floor(millis / 1000) % 60} s`);
const bytes = (count) => (count < 1000 ? `${count} B` : count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`);
// Steps that have ended are done, whatever is still stored of them.
const shown = (stage) => (stage.is_done && stage.state === "running" ? "done" : stage.state);
const note = (stage) => {
  if (stage.attached_to) return `shared with build ${stage.attached_to.build}`;
  return stage.is_done && stage.state === "running" ? "layers are being stored" : (stage.waiting_for ?? "");
};
const state = (name) => element("span", { class: `state ${name}` }, name);

async function list() {
  const page = await (await call("/v1/builds")).json();
  const rows = page.builds.map((build) => {
    const took = build.ended_at ? seconds(new Date(build.ended_at) - new Date(build.created_at)) : "";
    const link = element("a", { href: `#build/${build.id}` }, build.id.slice(0, 13));
    return element("tr", {},
      element("td", {}, link), element("td", {}, state(build.state)), element("td", {}, build.project),
      element("td", {}, build.target ?? ""), element("td", {}, build.dockerfile),
      element("td", {}, new Date(build.created_at).toLocaleString()), element("td", { class: "number" }, took));
  });
  const heads = ["build", "state", "project", "target", "Dockerfile", "created"].map((text) => element("th", {}, text));
  const empty = element("p", { class: "dim" }, "No builds yet. Make one: slipway build -t NAME .");
  main.replaceChildren(element("h1", {}, "Builds"),
    rows.length ? element("table", {}, element("thead", {}, element("tr", {}, ...heads, element("th", { class: "number" }, "took"))), element("tbody", {}, ...rows)) : empty);
}

/** Where a stage stands on the build's time, in milliseconds, and its segments. */
function segments(stage, origin) {
  const timing = stage.timing;
  const started = stage.started_at ? new Date(stage.started_at) - origin : 0;
  const parts = SEGMENTS.map((name) => [name, timing[`${name}_millis`]]);
  if ((stage.state === "running" && !stage.is_done) || stage.state === "parked") {
    const known = parts.slice(1).reduce((sum, [, millis]) => sum + millis, 0);
    const open = Math.max(0, Date.now() - origin - started - known);
    parts.push([stage.state === "parked" ? "parked" : "run", open]);
  }
  return { start: Math.max(0, started - timing.queue_millis), parts };
}

function waterfall(build) {
  const origin = new Date(build.created_at).getTime();
  const lanes = build.stages.filter((stage) => stage.attempts > 0).map((stage) => ({ stage, ...segments(stage, origin) }));
  const length = (lane) => lane.parts.reduce((sum, [, millis]) => sum + millis, lane.start);
  const total = Math.max(1, ...lanes.map(length));
  const drawn = lanes.map((lane) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${total} 10`);
    svg.setAttribute("preserveAspectRatio", "none");
    let at = lane.start;
    for (const [name, millis] of lane.parts) {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [key, value] of Object.entries({ x: at, y: 0, width: millis, height: 10, class: name })) rect.setAttribute(key, value);
      svg.append(rect);
      at += millis;
    }
    const words = lane.parts.filter(([, millis]) => millis > 0).map(([name, millis]) => `${NAMES[name]} ${seconds(millis)}`).join(", ");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${lane.stage.label}: ${words}`);
    const title = element("div", {}, lane.stage.label, element("div", { class: "dim" }, lane.stage.worker ?? ""));
    return element("div", { class: "lane" }, title, element("div", { class: "bar", title: words }, svg));
  });
  const legend = element("p", { class: "legend" }, ...SEGMENTS.map((name) => element("span", {}, element("b", { class: name }), NAMES[name])));
  return drawn.length ? element("section", {}, ...drawn, legend) : element("p", { class: "dim" }, "Nothing had to run.");
}

function stageRows(build) {
  const rows = [];
  for (const stage of build.stages) {
    const moved = stage.transfers.reduce((sum, used) => sum + used.transferred_bytes, 0);
    const cell = (text) => element("td", { class: "number" }, text);
    rows.push(element("tr", {},
      element("td", {}, stage.label), element("td", {}, state(shown(stage)), element("div", { class: "dim" }, note(stage))),
      element("td", {}, stage.worker ?? ""), cell(stage.attempts ? String(stage.attempts) : ""),
      cell(moved ? `${bytes(moved)} in` : ""), cell(stage.uploaded_bytes ? `${bytes(stage.uploaded_bytes)} out` : ""),
      element("td", {}, ...stage.steps.map((step) => element("div", {}, `${step.number}  ${step.display}`, element("span", { class: "dim" }, `  ${step.state} ${step.timing.run_millis ? seconds(step.timing.run_millis) : ""}`))))));
  }
  return rows;
}

// The excerpt, with the word to blame underlined.
function marked(found) {
  if (!found.span || !found.excerpt) return found.excerpt ?? "";
  const lines = found.excerpt.split("\n");
  const at = found.span.line - found.lines.start;
  const before = (lines[at] ?? "").slice(0, found.span.column - 1).replace(/[^\t]/g, " ");
  lines.splice(at + 1, 0, before + "^".repeat(found.span.length));
  return lines.join("\n");
}

function failure(found) {
  const place = found.file && found.lines ? `${found.file}:${found.lines.start}\n` : "";
  const text = [found.message, place + marked(found), found.hint ? `hint: ${found.hint}` : ""].filter(Boolean).join("\n\n");
  return element("div", { class: "failure", role: "alert" }, text);
}

function draw(build, view) {
  const took = (build.ended_at ? new Date(build.ended_at) : new Date()) - new Date(build.created_at);
  const heads = ["stage", "state", "worker"].map((text) => element("th", {}, text));
  const numbers = ["tries", "from S3", "to S3"].map((text) => element("th", { class: "number" }, text));
  const made = build.exports.map((made) => element("p", {}, `${made.names.join(", ") || made.kind} `, element("code", {}, made.digest)));
  view.replaceChildren(
    element("h1", {}, `Build ${build.id.slice(0, 13)}`),
    element("p", { class: "dim" }, state(build.state), ` ${build.dockerfile}${build.target ? `, target ${build.target}` : ""}, ${seconds(took)}`),
    build.failure ? failure(build.failure) : null ?? "", ...made,
    element("h2", {}, "Where the time went"), waterfall(build),
    element("h2", {}, "Stages"),
    element("table", {}, element("thead", {}, element("tr", {}, ...heads, ...numbers, element("th", {}, "steps"))), element("tbody", {}, ...stageRows(build))));
}

async function build(id) {
  const view = element("div");
  const log = element("pre", { tabindex: "0", "aria-label": "log" });
  main.replaceChildren(view, element("h2", {}, "Log"), log);
  const signal = stop.signal;
  let last = await (await call(`/v1/builds/${id}`)).json();
  draw(last, view);
  const follow = async () => {
    for await (const event of events(`/v1/builds/${id}/events`, signal)) {
      last = JSON.parse(event.data);
      draw(last, view);
    }
  };
  const read = async () => {
    for await (const event of events(`/v1/builds/${id}/logs?follow=true`, signal)) {
      if (event.name !== "log") return;
      const line = JSON.parse(event.data);
      const stage = last.stages.find((stage) => stage.id === line.stage);
      const stuck = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.append(`[${stage?.label ?? "…"} ${line.step}] ${line.text}\n`);
      while (log.childNodes.length > 5000) log.firstChild.remove();
      if (stuck) log.scrollTop = log.scrollHeight;
    }
  };
  const tick = setInterval(() => !last.ended_at && draw(last, view), 500);
  signal.addEventListener("abort", () => clearInterval(tick));
  await Promise.all([follow(), read()]);
  clearInterval(tick);
}

async function fleet() {
  const workers = await (await call("/v1/workers")).json();
  const live = workers.filter((worker) => worker.state === "live");
  const used = live.reduce((sum, worker) => sum + worker.used_slots, 0);
  const slots = live.reduce((sum, worker) => sum + worker.slots, 0);
  document.getElementById("fleet").textContent = `${live.length} workers, ${used} of ${slots} slots used`;
}

async function show() {
  stop.abort();
  stop = new AbortController();
  const known = token();
  login.hidden = Boolean(known);
  main.hidden = !known;
  if (!known) return;
  const [name, id] = location.hash.slice(1).split("/");
  try {
    fleet();
    if (name === "build" && id) await build(id);
    else await list();
  } catch (error) {
    if (error.name !== "AbortError") document.getElementById("problem").textContent = error.message;
  }
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", document.getElementById("token").value.trim());
  show();
});
addEventListener("hashchange", show);
setInterval(() => !location.hash.startsWith("#build/") && token() && list().catch(() => {}), 3000);
show();
