// The live page. Whatever comes from outside is text and becomes text: `textContent` alone.

import { growth, utilisation } from "./chart.js";

const SHOWN_AT_FIRST = 12;
const RETRY = 2000;
const LABELS = {
  seen: "requests seen",
  recognised: "of these, LLM requests",
  left_alone: "left alone",
  under_threshold: "fit as they were",
  no_step: "full, but no step would have helped",
  condensed: "condensed by a new step",
  reapplied: "earlier steps re-applied",
  observed: "observed only",
  failed_open: "failed open",
  refused_after_rewrite: "refused by the provider after a rewrite",
  refused_length: "refused by the provider as too long",
};

const talks = new Map();
let showAll = false;

const find = (id) => document.getElementById(id);
const count = (number) => Math.round(number).toLocaleString("en");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const dollars = (amount) => `${amount < 0 ? "-" : ""}$${Math.abs(amount).toFixed(4)}`;
const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function short(tokens) {
  const size = Math.abs(tokens);
  if (size < 1000) return String(Math.round(tokens));
  return size < 999950 ? `${(tokens / 1000).toFixed(1)}k` : `${(tokens / 1e6).toFixed(2)}M`;
}

function megabytes(bytes) {
  if (bytes === null || bytes === undefined) return "not known";
  return bytes < 1 << 20 ? `${count(bytes / 1024)} KB` : `${(bytes / (1 << 20)).toFixed(1)} MB`;
}

// An element with a class and children; strings become text.
function make(name, kind, ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

function fill(id, ...children) {
  find(id).replaceChildren(...children);
}

const sign = (amount) => (amount > 0 ? "gain" : amount < 0 ? "loss" : "");

function rows(id, pairs, nothing) {
  const made = pairs.map(([name, value, kind]) => {
    const head = make("th", "", name);
    head.scope = "row";
    return make("tr", "", head, make("td", kind ?? "", value));
  });
  fill(id, ...(made.length ? [make("tbody", "", ...made)] : [make("caption", "empty", nothing)]));
}

function tile(name, value, kind, more) {
  const made = make("div", "tile", make("span", "", name), make("b", kind ?? "", value));
  if (more) made.append(make("span", "", more));
  return made;
}

function tiles({ requests, tokens, money, steps, prefix_breaks_unexplained: breaks }, mode) {
  const observing = mode === "observe";
  const saved = observing ? tokens.would_save : tokens.saved;
  const amount = observing ? money.would_save : money.saved;
  const share = tokens.sent ? `${percent(saved / tokens.sent)} of all sent` : "";
  const made = [
    tile("LLM requests", count(requests.recognised)),
    tile("steps taken", count(steps)),
    tile(observing ? "tokens it would save" : "tokens saved", short(saved), "", share),
    tile("cost as reported", dollars(money.cost)),
    tile(observing ? "money it would save" : "money saved", dollars(amount), sign(amount)),
    tile("failed open", count(requests.failed_open), requests.failed_open ? "loss" : ""),
  ];
  if (breaks) made.push(tile("unexplained prefix breaks", count(breaks), "loss"));
  fill("tiles", ...made);
}

function bands(found) {
  const made = found.map((band) => {
    const kind = band.missed ? "missed" : band.rating;
    const bound = band.rises ? "above" : "below";
    const made = make(
      "div",
      `band ${kind}`,
      make("span", "rating", band.rating),
      make("span", "", band.title),
      make("b", "", band.value),
      make("span", "", `excellent ${bound} ${band.excellent}, good ${bound} ${band.good}`),
    );
    if (band.rating === "undecided") {
      made.append(make("p", "note", `${count(band.cases)} of ${count(band.least)} cases needed to judge`));
    } else if (band.missed) {
      made.append(make("p", "", `What helps: ${band.advice}.`));
    }
    return made;
  });
  fill("bands", ...made);
}

function axis(first, last) {
  return make("div", "axis", make("span", "", first), make("span", "", last));
}

function savings(samples) {
  if (!samples.length) return;
  const latest = samples[samples.length - 1];
  const tokens = samples.map((sample) => sample[1] - sample[2]);
  const money = samples.map((sample) => sample[4]);
  const from = time(samples[0][0]);
  const to = time(latest[0]);
  find("tokens-now").textContent = count(tokens[tokens.length - 1]);
  find("money-now").textContent = dollars(latest[4]);
  find("money-now").className = sign(latest[4]);
  fill("tokens-chart", growth(tokens, "Tokens saved since the start"), axis(from, to));
  fill("money-chart", growth(money, "Dollars saved since the start"), axis(from, to));
}

function pair(name, value, kind) {
  return make("div", "", make("dt", "", name), make("dd", kind ?? "", value));
}

function conversation(talk, warning) {
  const drawn = talk.points;
  const newest = drawn[drawn.length - 1];
  const [, sent, , after, room] = newest;
  const observing = newest[5] === "observed";
  const link = make("a", "", "newest request");
  link.href = `./#/flows/${encodeURIComponent(talk.flow)}/request`;
  const facts = [
    pair("window", `${percent(after / room)} of ${short(room)}`),
    pair("level", talk.level),
    pair("requests", count(talk.requests)),
    pair("steps", count(talk.steps)),
    pair(observing ? "would be" : "tokens", sent === after ? short(sent) : `${short(sent)} → ${short(after)}`),
  ];
  if (talk.reported) {
    const error = `${talk.error >= 0 ? "+" : ""}${percent(talk.error)}`;
    facts.push(pair("provider counted", `${short(talk.reported)} (estimate ${error})`));
  }
  if (talk.priced) {
    facts.push(pair("cost", dollars(talk.cost)));
    facts.push(pair(observing ? "would save" : "saved", dollars(talk.saved), sign(talk.saved)));
  }
  const steps = drawn.filter((row) => row[6]).length;
  const label =
    `Utilisation over ${talk.requests} requests, now ${percent(after / room)}; ` +
    `${steps} ${steps === 1 ? "step" : "steps"} marked`;
  return make(
    "article",
    "talk",
    make("h3", "", talk.model || "a model without a name", make("span", "", `${talk.api} · ${talk.host}`), link),
    make("dl", "", ...facts),
    utilisation(drawn, warning, label),
    axis(time(drawn[0][0]), time(newest[0])),
  );
}

function conversations(changed, whole, warning) {
  if (whole) talks.clear();
  for (const talk of changed) talks.set(talk.id, { talk, drawn: conversation(talk, warning) });
  const sorted = [...talks.values()].sort((a, b) => b.talk.last - a.talk.last);
  // The server remembers no more than this either.
  for (const { talk } of sorted.slice(100)) talks.delete(talk.id);
  if (changed.length || whole) draw();
}

function draw() {
  const sorted = [...talks.values()].sort((a, b) => b.talk.last - a.talk.last);
  if (!sorted.length) {
    fill("conversations", make("p", "empty", "No LLM request yet."));
    return;
  }
  const shown = showAll ? sorted : sorted.slice(0, SHOWN_AT_FIRST);
  const list = make("div", "talks", ...shown.map((one) => one.drawn));
  const focused = document.activeElement?.closest?.(".talk a")?.href;
  fill("conversations", list);
  if (sorted.length > shown.length) {
    const more = make("button", "", `Show all ${sorted.length}`);
    more.type = "button";
    more.addEventListener("click", () => {
      showAll = true;
      draw();
    });
    find("conversations").append(more);
  }
  if (focused) [...list.querySelectorAll("a")].find((one) => one.href === focused)?.focus();
}

function estimates(found) {
  rows("estimates", [
    ["compared with the provider's own count", count(found.compared)],
    ["within 2 %", percent(found.within_2_percent)],
    ["within 5 %", percent(found.within_5_percent)],
    ["median error", percent(found.median_error)],
  ]);
  const parts = Object.entries(found.latest_within ?? {});
  const most = Math.max(1, ...parts.map(([, number]) => number));
  const made = parts.map(([bound, number]) => {
    const bar = make("meter", "");
    bar.max = most;
    bar.value = number;
    bar.setAttribute("aria-hidden", "true");
    const name = bound === "more" ? "beyond" : `within ${bound}`;
    return make("div", "", make("span", "", name), bar, make("span", "", count(number)));
  });
  fill("errors", ...(found.compared ? made : []));
}

function stores(found) {
  const heads = ["", "found", "of asked", "entries", "size", "state"].map((name) => {
    const head = make("th", "", name);
    head.scope = "col";
    return head;
  });
  const body = Object.entries(found).map(([name, one]) => {
    const head = make("th", "", name);
    head.scope = "row";
    const faults = Object.entries(one.faults ?? {}).map(([why, times]) => `${times} x ${why}`);
    const cells = [
      percent(one.hit_ratio),
      count(one.hits + one.misses),
      one.entries === null ? "not known" : count(one.entries),
      megabytes(one.size),
      [one.state, ...faults].join(", "),
    ];
    return make("tr", "", head, ...cells.map((cell) => make("td", "", cell)));
  });
  fill("stores", make("thead", "", make("tr", "", ...heads)), make("tbody", "", ...body));
}

const named = (found) => Object.entries(found ?? {}).map(([name, number]) => [name, count(number)]);

const milliseconds = (amount) => `${count(amount)} ms`;
// What is told of questions to models, and how; reasons stand behind it.
const ASKED = {
  asked: ["questions asked", count],
  answered: ["answered", count],
  success_rate: ["summaries that were good enough", percent],
  avg_answer_ms: ["time per answer", milliseconds],
  avg_tokens_saved: ["tokens freed by each that was used", count],
  price: ["cost of the questions", dollars],
  input_tokens: ["tokens of the questions", count],
  output_tokens: ["tokens of the answers", count],
  requests_that_waited: ["requests that waited for an answer", count],
  waiting_ms: ["waiting in all", milliseconds],
  prepared: ["summaries made ahead of need", count],
  used: ["of these used", count],
  wasted: ["of these never used", count],
  late: ["answers that came too late", count],
  shed: ["put off, since too many were under way", count],
  stopped: ["given up, since nobody waited any more", count],
};

function questions(found) {
  const { rejected = {}, not_asked: unasked = {}, ...numbers } = found ?? {};
  const pairs = [];
  if (Object.values(numbers).some((number) => number)) {
    for (const [name, value] of Object.entries(numbers)) {
      const [label, told] = ASKED[name] ?? [name.replaceAll("_", " "), String];
      pairs.push([label, told(value)]);
    }
  }
  for (const [why, times] of Object.entries(rejected)) pairs.push([`rejected: ${why}`, count(times)]);
  for (const [why, times] of Object.entries(unasked)) pairs.push([`not asked: ${why}`, count(times)]);
  rows("questions", pairs, "No model was asked for a summary.");
}

function show(news) {
  const { figures } = news;
  const mode = find("mode");
  mode.textContent = news.mode;
  mode.className = `badge ${news.mode === "condense" ? "" : "lifted"}`;
  tiles(figures, news.mode);
  bands(news.bands);
  savings(news.samples);
  conversations(news.conversations, news.whole, news.warning);
  rows("requests", Object.entries(figures.requests).map(([name, number]) => [LABELS[name] ?? name, count(number)]));
  estimates(figures.estimates);
  rows("failures", named(figures.failures), "None.");
  rows("alone", named(figures.left_alone), "Nothing.");
  rows("changes", named(figures.changes), "No step yet.");
  questions(figures.questions);
  stores(figures.stores);
  const spent = figures.processing;
  find("foot").textContent =
    `${spent.avg_ms.toFixed(1)} ms per LLM request, ${spent.max_ms.toFixed(0)} ms at most · ` +
    `${figures.memory_usage_mb.toFixed(0)} MB of memory · counting since ` +
    `${new Date((news.now - figures.uptime_seconds) * 1000).toLocaleString()}`;
}

function connected(text, kind) {
  const badge = find("connection");
  if (badge.textContent === text) return;
  badge.textContent = text;
  badge.className = `badge ${kind}`;
}

function listen() {
  const address = new URL("context/live", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.search = "";
  const socket = new WebSocket(address);
  socket.addEventListener("message", (event) => {
    show(JSON.parse(event.data));
    connected("live", "live");
  });
  socket.addEventListener("close", () => {
    connected("not connected", "off");
    setTimeout(listen, RETRY);
  });
}

// The token has become a cookie; it need not stand in the address any more.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
listen();
