// Brings the pages to life: fetches the overview anew, draws the curve of a day, follows the live stream.
// Talks to the server it came from and to nobody else.
"use strict";

const liveMark = document.getElementById("live");
function say(state, text) {
  liveMark.className = "live " + state;
  liveMark.textContent = text;
}

// --- The overview: what the server renders, every few seconds, as long as somebody looks.

function keepFresh() {
  const seconds = Number(document.querySelector("main").dataset.refreshS);
  if (!seconds) return;
  say("on", "live");
  const refresh = async () => {
    // Not under a reader's hands.
    if (document.hidden || document.activeElement instanceof HTMLInputElement || String(getSelection())) return;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "follow" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return location.assign(answer.url);
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      const focus = document.activeElement && document.activeElement.getAttribute("href");
      const scrolled = [...document.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      document.querySelector("main").replaceWith(document.adoptNode(fresh));
      document.querySelectorAll(".scroll").forEach((box, index) => { box.scrollLeft = scrolled[index] || 0; });
      if (focus) for (const link of document.querySelectorAll("main a")) {
        if (link.getAttribute("href") === focus) { link.focus({ preventScroll: true }); break; }
      }
      say("on", "live");
    } catch {
      say("off", "not connected");
    }
  };
  setInterval(refresh, seconds * 1000);
  document.addEventListener("visibilitychange", refresh);
}

// --- The curve of a day.

const SVG = "http://www.w3.org/2000/svg";
function shape(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// 1, 2 or 5 times a power of ten, about `count` of them in `span`.
function niceStep(span, count) {
  const rough = span / Math.max(1, count);
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= rough * 0.999) || 10;
  return factor * power;
}

const TIME_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400];

class Curve {
  constructor(figure) {
    const data = figure.dataset;
    this.figure = figure;
    this.plot = document.getElementById("plot");
    this.probe = document.getElementById("probe");
    this.reset = document.getElementById("reset");
    this.day = [Date.parse(data.from), Date.parse(data.to)];
    this.view = [...this.day];
    this.periodMs = Number(data.periodS) * 1000;
    this.cadenceMs = Number(data.cadenceS) * 1000;
    this.bars = data.kind === "interval" && this.periodMs > 0;
    this.unit = data.unit;
    this.points = [];
    const clock = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: data.tz, hourCycle: "h23", ...options });
    this.minutes = clock({ hour: "2-digit", minute: "2-digit" });
    this.seconds = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
    this.pointers = new Map();
    this.reset.addEventListener("click", () => this.show(...this.day));
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  async load() {
    let after = "";
    const points = [];
    do {
      const answer = await fetch(this.figure.dataset.src + (after && "&after=" + encodeURIComponent(after)));
      if (!answer.ok) throw new Error(String(answer.status));
      const page = await answer.json();
      for (const reading of page.readings) points.push(this.point(reading));
      after = page.next || "";
    } while (after);
    // What came live meanwhile stays.
    const known = new Set(points.map((point) => point.key));
    this.points = points.concat(this.points.filter((point) => !known.has(point.key)));
    this.sort();
  }

  point(reading) {
    const at = Date.parse(reading.captured_at);
    return {
      key: at + "." + reading.nth, at, text: reading.value, value: reading.value_double,
      start: reading.started_at ? Date.parse(reading.started_at) : at, good: reading.quality === "good",
    };
  }

  sort() {
    this.points.sort((a, b) => a.at - b.at);
    this.draw();
  }

  add(reading) {
    const point = this.point(reading);
    if (point.at < this.day[0] || point.at > this.day[1] || (this.periodMs && point.at === this.day[0])) return false;
    if (!this.unit) this.unit = reading.unit;
    const known = this.points.findIndex((other) => other.key === point.key);
    if (known >= 0) this.points[known] = point; else this.points.push(point);
    this.sort();
    return true;
  }

  show(from, to) {
    const [first, last] = this.day;
    const span = Math.min(last - first, Math.max(to - from, 10000));
    const start = Math.min(Math.max(from, first), last - span);
    this.view = [start, start + span];
    this.reset.hidden = span >= last - first;
    this.draw();
  }

  zoom(factor, x) {
    const [from, to] = this.view;
    const pivot = x === undefined ? (from + to) / 2 : this.when(x);
    this.show(pivot - (pivot - from) * factor, pivot + (to - pivot) * factor);
  }

  when(x) {
    const { left, width } = this.box;
    return this.view[0] + ((x - left) / width) * (this.view[1] - this.view[0]);
  }

  draw() {
    const bounds = this.plot.getBoundingClientRect();
    if (bounds.width < 50) return;
    const [from, to] = this.view;
    // A neighbour on each side, so that a line leaves the picture instead of ending in it.
    const last = this.points.length - 1;
    const inside = this.points.filter((point, index) =>
      (point.at >= from && point.start <= to) ||
      (index < last && point.at < from && this.points[index + 1].start > from) ||
      (index > 0 && point.start > to && this.points[index - 1].at < to));
    const scale = this.scaleY(inside);
    const wide = Math.max(...scale.labels.map((label) => label.length), 1);
    const box = { left: Math.min(wide * 7 + 10, 110), top: 14, right: 6, bottom: 24 };
    box.width = bounds.width - box.left - box.right;
    box.height = bounds.height - box.top - box.bottom;
    this.box = box;
    const x = (at) => box.left + ((at - from) / (to - from)) * box.width;
    const y = (value) => box.top + (1 - (value - scale.low) / (scale.high - scale.low)) * box.height;
    this.x = x;
    this.y = y;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${bounds.width} ${bounds.height}`);
    const clip = shape(shape(svg, "defs", {}), "clipPath", { id: "inside" });
    shape(clip, "rect", { x: box.left, y: 0, width: box.width, height: bounds.height });
    scale.ticks.forEach((tick, index) => {
      shape(svg, "line", { class: tick === 0 ? "axis" : "grid", x1: box.left, x2: box.left + box.width, y1: y(tick), y2: y(tick) });
      shape(svg, "text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, scale.labels[index]);
    });
    this.drawTimes(svg, x, box);
    const marks = shape(svg, "g", { "clip-path": "url(#inside)" });
    if (this.bars) this.drawBars(marks, inside, x, y); else this.drawLine(marks, inside, x, y);
    if (!inside.length) {
      shape(svg, "text", { class: "empty", x: box.left + box.width / 2, y: box.top + box.height / 2 }, "No readings in this range");
    }
    this.over = shape(svg, "g", {});
    this.plot.replaceChildren(svg);
  }

  scaleY(points) {
    let low = Infinity, high = -Infinity;
    for (const point of points) { low = Math.min(low, point.value); high = Math.max(high, point.value); }
    if (!points.length) { low = 0; high = 1; }
    if (this.bars) { low = Math.min(0, low); high = Math.max(0, high); }
    if (low === high) { const pad = Math.abs(low) * 0.01 || 1; if (this.bars) high += pad; else { low -= pad; high += pad; } }
    const step = niceStep(high - low, 5);
    low = Math.floor(low / step + 1e-9) * step;
    high = Math.ceil(high / step - 1e-9) * step;
    const decimals = Math.min(9, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    const ticks = [];
    for (let index = 0; index <= Math.round((high - low) / step); index += 1) ticks.push(Number((low + index * step).toFixed(decimals)));
    const labels = ticks.map((tick) => tick.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replaceAll(",", "\u202f"));
    if (this.unit) labels[labels.length - 1] += " " + this.unit;
    return { low, high, ticks, labels };
  }

  drawTimes(svg, x, box) {
    const [from, to] = this.view;
    const most = Math.max(2, Math.floor(box.width / 64));
    const stepMs = 1000 * (TIME_STEPS_S.find((step) => (to - from) / 1000 / step <= most) || 86400);
    const format = stepMs < 60000 ? this.seconds : this.minutes;
    // Counted from the day's start: where the clocks change, labels show it.
    for (let at = this.day[0] + Math.ceil((from - this.day[0]) / stepMs) * stepMs; at <= to; at += stepMs) {
      shape(svg, "line", { class: "grid", x1: x(at), x2: x(at), y1: box.top, y2: box.top + box.height });
      const anchor = x(at) > box.left + box.width - 20 ? "end" : x(at) < box.left + 20 ? "start" : "middle";
      const text = at === this.day[1] && stepMs >= 60000 ? "24:00" : format.format(at);
      shape(svg, "text", { x: x(at), y: box.top + box.height + 18, "text-anchor": anchor }, text);
    }
  }

  drawBars(svg, points, x, y) {
    for (const point of points) {
      const left = x(point.start), width = Math.max(0.8, x(point.at) - left - (x(point.at) - left > 5 ? 1.5 : 0));
      const top = Math.min(y(0), y(point.value));
      shape(svg, "rect", { class: point.good ? "bar-good" : "bar-doubt", x: left, y: top, width, height: Math.max(0.8, Math.abs(y(point.value) - y(0))) });
    }
  }

  drawLine(svg, points, x, y) {
    // A line over a hole would be a lie.
    const gapMs = this.cadenceMs ? this.cadenceMs * 2.5 : Infinity;
    let path = "", before = null, alone = [];
    points.forEach((point, index) => {
      const joins = before && point.at - before.at <= gapMs;
      const next = points[index + 1];
      path += (joins ? "L" : "M") + x(point.at).toFixed(1) + " " + y(point.value).toFixed(1);
      if (!joins && !(next && next.at - point.at <= gapMs)) alone.push(point);
      before = point;
    });
    shape(svg, "path", { class: "line", d: path });
    const marked = points.length <= 60 ? points : alone;
    for (const point of marked) shape(svg, "circle", { class: "dot", cx: x(point.at), cy: y(point.value), r: 2.4 });
  }

  // Shows the reading nearest to where the pointer is.
  point_out(clientX) {
    if (!this.box || !this.points.length) return;
    const x = clientX - this.plot.getBoundingClientRect().left;
    const at = this.when(x);
    const middle = (point) => (this.bars ? (point.start + point.at) / 2 : point.at);
    let nearest = null;
    for (const point of this.points) {
      if (point.at < this.view[0] || point.start > this.view[1]) continue;
      if (!nearest || Math.abs(middle(point) - at) < Math.abs(middle(nearest) - at)) nearest = point;
    }
    this.over.replaceChildren();
    this.probe.replaceChildren();
    if (!nearest) return;
    const px = this.x(middle(nearest));
    shape(this.over, "line", { class: "cross", x1: px, x2: px, y1: this.box.top, y2: this.box.top + this.box.height });
    shape(this.over, "circle", { class: "at", cx: px, cy: this.y(nearest.value), r: 4 });
    const format = this.periodMs && this.periodMs % 60000 === 0 ? this.minutes : this.seconds;
    const when = this.periodMs ? format.format(nearest.start) + "–" + format.format(nearest.at) : format.format(nearest.at);
    const value = document.createElement("b");
    value.textContent = nearest.text;
    this.probe.append(when + "  ", value, " " + this.unit);
  }

  listen() {
    const plot = this.plot;
    const local = (event) => event.clientX - plot.getBoundingClientRect().left;
    plot.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.shift(event.deltaX / 800);
      else this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), local(event));
    }, { passive: false });
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      plot.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { start: local(event), now: local(event) });
      this.pinch = null;
    });
    plot.addEventListener("pointermove", (event) => {
      const pointer = this.pointers.get(event.pointerId);
      if (pointer) pointer.now = local(event);
      if (this.pointers.size === 2) return this.pinched();
      this.point_out(event.clientX);
      if (pointer && Math.abs(pointer.now - pointer.start) > 4) this.band(pointer);
    });
    const end = (event) => {
      const pointer = this.pointers.get(event.pointerId);
      const alone = this.pointers.size === 1 && !this.pinch;
      this.pointers.delete(event.pointerId);
      if (!this.pointers.size) this.pinch = null;
      if (!pointer || !alone || event.type !== "pointerup") return;
      const [left, right] = [pointer.start, pointer.now].sort((a, b) => a - b);
      if (right - left > 8) this.show(this.when(left), this.when(right));
    };
    plot.addEventListener("pointerup", end);
    plot.addEventListener("pointercancel", end);
    plot.addEventListener("pointerleave", () => {
      if (this.pointers.size || !this.over) return;
      this.over.replaceChildren();
      this.probe.replaceChildren();
    });
    plot.addEventListener("dblclick", () => this.show(...this.day));
    plot.addEventListener("keydown", (event) => {
      const act = { "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6), 0: () => this.show(...this.day),
        ArrowLeft: () => this.shift(-0.2), ArrowRight: () => this.shift(0.2) }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  }

  shift(part) {
    const by = (this.view[1] - this.view[0]) * part;
    this.show(this.view[0] + by, this.view[1] + by);
  }

  band(pointer) {
    const [left, right] = [pointer.start, pointer.now].sort((a, b) => a - b);
    shape(this.over, "rect", { class: "band", x: left, y: this.box.top, width: right - left, height: this.box.height });
  }

  // Two fingers hold the instants they were put on.
  pinched() {
    const [a, b] = [...this.pointers.values()].map((pointer) => pointer.now).sort((a, b) => a - b);
    if (b - a < 12) return;
    if (!this.pinch) this.pinch = { a: this.when(a), b: this.when(b) };
    const perPixel = (this.pinch.b - this.pinch.a) / (b - a);
    const from = this.pinch.a - (a - this.box.left) * perPixel;
    this.show(from, from + this.box.width * perPixel);
  }
}

// --- The table and the list of series, live.

function cell(row, className, ...content) {
  const td = row.insertCell();
  if (className) td.className = className;
  td.append(...content);
}

function quantity(reading) {
  const number = document.createElement("span"), unit = document.createElement("span");
  number.className = "num";
  number.textContent = reading.value;
  unit.className = "unit";
  unit.textContent = reading.unit;
  return [number, " ", unit];
}

function addRow(curve, reading) {
  const table = document.getElementById("readings");
  const body = table.tBodies[0];
  const at = Date.parse(reading.captured_at);
  const key = at + "." + reading.nth;
  const known = [...body.rows].find((row) => row.dataset.at === key);
  if (known) known.remove();
  // Newest first: before the first row that is older.
  const older = [...body.rows].findIndex((row) => Number(row.dataset.at.split(".")[0]) <= at);
  const row = body.insertRow(older);
  row.dataset.at = key;
  row.className = "new";
  const format = curve.periodMs && curve.periodMs % 60000 === 0 ? curve.minutes : curve.seconds;
  if (curve.periodMs) cell(row, "num", format.format(Date.parse(reading.started_at)));
  cell(row, "num", format.format(at));
  cell(row, "r", ...quantity(reading));
  cell(row, reading.quality === "good" ? "faint" : "doubt", reading.quality.replaceAll("|", ", "));
  while (body.rows.length > Number(table.dataset.rows)) body.deleteRow(-1);
  document.getElementById("count").textContent = String(curve.points.length);
  const none = document.getElementById("none");
  if (none) none.remove();
}

function follow(curve) {
  const data = curve.figure.dataset;
  const source = new EventSource("/v1/live?meter=" + encodeURIComponent(data.meter));
  let interrupted = false;
  source.addEventListener("open", () => {
    say("on", "live");
    // What was committed while nobody listened.
    if (interrupted) curve.load().catch(() => {});
    interrupted = false;
  });
  source.addEventListener("error", () => {
    interrupted = true;
    say("off", "not connected");
  });
  source.addEventListener("reading", (event) => {
    const reading = JSON.parse(event.data);
    const series = `${reading.code} ${reading.kind} ${reading.period_s}`;
    const at = Date.parse(reading.captured_at);
    const last = [...document.querySelectorAll(".last")].find((element) => element.dataset.series === series);
    // Backlog comes after what is live: "last" never goes back.
    if (last && at >= Number(last.dataset.at)) {
      last.dataset.at = String(at);
      last.replaceChildren(...quantity(reading));
    }
    if (series !== `${data.code} ${data.kind} ${data.periodS}`) return;
    if (curve.add(reading)) addRow(curve, reading);
    // Only where the newest day is shown there is something to go on to.
    const newer = document.getElementById("newer");
    if (newer && at > curve.day[1]) newer.hidden = false;
  });
}

const figure = document.getElementById("curve");
if (figure) {
  const curve = new Curve(figure);
  curve.load().catch(() => say("off", "the readings cannot be loaded"));
  // A day that is over is filled too: by a meter that is read late, by a backlog, by one whose clock is behind.
  follow(curve);
}
keepFresh();
