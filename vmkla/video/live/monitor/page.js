// Asks for the status and the picture, and shows them. What was not heard of for STALE_MS is not shown any more:
// an old "AI ON" on this page would be worse than none.
"use strict";

const STALE_MS = 1500;
const STATUS_EVERY_MS = 250;
const PICTURE_EVERY_MS = 100;
const GIVE_UP_MS = 1200;

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Two clocks: the first stops while the computer sleeps, the second may be set.
const now = () => ({ steady: performance.now(), wall: Date.now() });
const since = (then) => Math.max(performance.now() - then.steady, Date.now() - then.wall);

let heardStatus = null;    // when the last believable status was true
let heardPicture = null;   // when the picture on the canvas was taken
let everHeard = null;      // for the words beside "NO CONNECTION"
let noSignal = false;
let denied = false;

async function ask(path) {
  const cut = new AbortController();
  const timer = setTimeout(() => cut.abort(), GIVE_UP_MS);
  const asked = now();
  try {
    const answer = await fetch(path, { cache: "no-store", signal: cut.signal });
    denied = answer.status === 401;
    const body = answer.status === 200 ? await (path.endsWith(".json") ? answer.json() : answer.blob()) : null;
    return { asked, body, age: Number(answer.headers.get("X-Age-Ms") || 0) };
  } catch (error) {
    return { asked, body: null, age: 0 };  // refused, cut off or too late: the watch below says so
  } finally {
    clearTimeout(timer);
  }
}

// The moment `age` milliseconds before the question was asked: never later than it really was.
const earlier = (asked, age) => ({ steady: asked.steady - age, wall: asked.wall - age });

async function followStatus() {
  for (;;) {
    const { asked, body } = await ask("status.json");
    if (body && body.live && !document.hidden) {
      heardStatus = earlier(asked, body.age_ms);
      everHeard = new Date();
      show(body.status);
    } else if (body) {
      heardStatus = null;  // the server itself says that the live run is silent
    }
    watch();
    await pause(STATUS_EVERY_MS);
  }
}

async function followPicture() {
  const canvas = byId("picture");
  for (;;) {
    const { asked, body, age } = await ask("picture.jpg");
    const bitmap = body && await createImageBitmap(body).catch(() => null);
    if (bitmap && !document.hidden) {
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
        canvas.width = bitmap.width;
        canvas.height = bitmap.height;
      }
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      heardPicture = earlier(asked, age);
    }
    watch();
    await pause(Math.max(20, PICTURE_EVERY_MS - since(asked)));
  }
}

// Whether what is shown may still be believed. Runs on its own timer, whatever became of the questions.
function watch() {
  const known = heardStatus !== null && since(heardStatus) < STALE_MS;
  const pictured = known && heardPicture !== null && since(heardPicture) < STALE_MS;
  byId("cover").hidden = pictured && !noSignal;
  byId("cover").textContent = !known ? "NOT LIVE" : noSignal ? "NO SIGNAL" : "NO PICTURE";
  if (!pictured) clearPicture();
  if (!known) forget();
}

function clearPicture() {
  const canvas = byId("picture");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  heardPicture = null;
}

function forget() {
  heardStatus = null;
  document.body.className = "unknown";
  byId("ai").textContent = "NO CONNECTION";
  byId("reason").textContent = denied ? "The token is not accepted. Open the page anew."
    : everHeard ? `Last heard at ${clock(everHeard)}. Look at the cart's own display.`
    : "Nothing is known of the live run.";
  for (const id of ["signal", "recording", "fps", "uptime", "received", "shown", "dropped", "restarts"]) {
    byId(id).textContent = "–";
    byId(id).className = "";
  }
  for (const id of ["video", "marker"]) {
    const figure = byId(id);
    figure.querySelector(".bars").replaceChildren();
    figure.querySelector(".axis").replaceChildren();
    figure.querySelector(".main").textContent = figure.querySelector(".more").textContent = "–";
    figure.querySelector(".main").className = "main";
  }
  byId("causes").textContent = "";
  byId("beat").className = "";
  byId("heard").querySelector("span").textContent = "not connected";
}

const STATES = { on: "AI ON", off: "AI OFF", paused: "AI PAUSED", starting: "AI STARTING" };
const REASONS = { on: "", off: "No markers are drawn.", paused: "No markers are drawn.", starting: "No markers are drawn yet." };
const SIGNALS = { good: "good", black: "black", frozen: "frozen", lost: "lost" };

function show(status) {
  noSignal = status.signal === "lost";
  document.body.className = status.ai in STATES ? status.ai : "off";
  byId("ai").textContent = STATES[status.ai] || "AI OFF";
  byId("reason").textContent = status.ai_reason ? sentence(status.ai_reason) : REASONS[status.ai] || "";
  put("signal", SIGNALS[status.signal] || status.signal, status.signal !== "good");
  put("recording", status.recording === null ? "off" : status.recording ? "on" : "stopped",
      status.recording === false, status.recording ? "rec" : "");
  put("fps", status.fps.toFixed(1));
  put("uptime", lasting(status.uptime_s));
  put("received", number(status.received));
  put("shown", number(status.shown));
  const causes = Object.entries(status.dropped).filter(([, count]) => count > 0);
  const dropped = causes.reduce((sum, [, count]) => sum + count, 0);
  put("dropped", number(dropped), dropped > 0);
  put("restarts", number(status.restarts), status.restarts > 0);
  const notes = causes.map(([cause, count]) => `${cause}: ${number(count)}`);
  byId("causes").textContent = [
    notes.length ? `Dropped: ${notes.join(", ")}.` : "",
    status.recording_note ? `Recording: ${status.recording_note}.` : "",
  ].join(" ").trim();
  histogram("video", status.video_delay_ms, "p99");
  histogram("marker", status.marker_delay_ms, "p95");
  list(status.events);
  byId("beat").className = byId("beat").className ? "" : "tick";
  byId("heard").querySelector("span").textContent = `live, ${clock(new Date())}`;
}

function put(id, text, bad = false, extra = "") {
  byId(id).textContent = text;
  byId(id).className = [bad ? "bad" : "", extra].join(" ").trim();
}

function histogram(id, delay, judged) {
  const figure = byId(id);
  const bars = figure.querySelector(".bars");
  const axis = figure.querySelector(".axis");
  const main = figure.querySelector(".main");
  bars.replaceChildren();
  axis.replaceChildren();
  main.className = delay.count && delay[judged] > delay.limit ? "main bad" : "main";
  main.textContent = delay.count ? `${judged} ${ms(delay[judged])}` : "none yet";
  figure.querySelector(".more").textContent = delay.count
    ? `p50 ${short(delay.p50)} · p95 ${short(delay.p95)} · p99 ${short(delay.p99)} · max ${ms(delay.max)}`
    : "in the last minute";
  const most = Math.max(1, ...delay.bars);
  const limitAt = delay.edges.indexOf(delay.limit);
  delay.bars.forEach((count, index) => {
    if (index === limitAt) bars.append(document.createElement("b"));
    const bar = document.createElement("i");
    // A single delay among thousands must be seen, so a bar that is not empty has a least height.
    bar.style.height = count ? `${Math.max(4, 100 * count / most)}%` : "0";
    bar.className = limitAt >= 0 && index >= limitAt ? "over" : "";
    bar.title = String(count);
    bars.append(bar);
  });
  label(axis, "0", 0);
  if (limitAt > 0) label(axis, `limit ${delay.limit} ms`, limitAt / delay.bars.length);
  label(axis, `over ${delay.edges[delay.edges.length - 1]} ms`, 1);
}

function label(axis, text, at) {
  const mark = document.createElement("span");
  mark.textContent = text;
  mark.style.left = `${100 * at}%`;
  axis.append(mark);
}

function list(events) {
  byId("events").replaceChildren(...events.slice().reverse().map((event) => {
    const line = document.createElement("li");
    const time = document.createElement("time");
    const at = new Date(event.time);
    time.textContent = Number.isNaN(at.getTime()) ? "" : clock(at);
    const kind = document.createElement("b");
    kind.textContent = event.kind;
    const detail = document.createElement("span");
    detail.textContent = event.detail;
    line.append(time, kind, detail);
    return line;
  }));
}

const short = (value) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
const ms = (value) => `${short(value)} ms`;
const number = (value) => value.toLocaleString("en-GB").replaceAll(",", " ");
const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
const clock = (date) => date.toLocaleTimeString("en-GB", { hour12: false });

function lasting(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return (h ? [h, m, s] : [m, s]).map((part, at) => (at ? String(part).padStart(2, "0") : part)).join(":");
}

// A page out of sight runs its timers rarely, and one brought back from the cache shows what it once showed.
document.addEventListener("visibilitychange", forgetAll);
window.addEventListener("pagehide", forgetAll);
window.addEventListener("pageshow", forgetAll);
function forgetAll() {
  heardStatus = null;
  watch();
}

setInterval(watch, 200);
watch();
followStatus();
followPicture();
