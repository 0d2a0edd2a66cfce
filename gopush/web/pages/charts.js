"use strict";
/** Charts of what the page has seen since it was opened; and what is counted, as rates. */
const MOST_POINTS = 1200;
const colour = name => getComputedStyle(document.body).getPropertyValue(name).trim();
const rounded = value => (value < 10 ? Math.round(value * 10) / 10 : Math.round(value));

/** The points that no line leads to, or from. */
const lonely = (plot, series) => {
  const values = plot.data[series], known = i => (values[i] ?? null) !== null;
  return values.map((_, i) => i).filter(i => known(i) && !known(i - 1) && !known(i + 1));
};

class Chart {
  constructor(name, title, unit, stroke, nothing) {
    this.times = [];
    this.values = [];
    this.unit = unit;
    this.hovered = null;
    const head = element("p");
    this.box = element("div", "", { className: "chart", id: "chart-" + name });
    this.now = element("b");
    this.empty = element("p", nothing, { className: "empty" });
    head.append(element("span", title), this.now);
    this.box.append(head, this.empty);
    at("charts").append(this.box);
    const dim = () => colour("--dim"), grid = { stroke: () => colour("--line"), width: 1 };
    const axis = { stroke: dim, grid, ticks: grid, font: "12px system-ui" };
    this.plot = new uPlot({
      ...this.size(), legend: { show: false }, cursor: { y: false, drag: { setScale: false, x: false } },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
      axes: [{ ...axis, size: 28, space: 80 }, { ...axis, size: 46 }],
      series: [{}, { stroke, width: 1.5, fill: stroke + "22", points: { size: 4, fill: stroke, show: true, filter: lonely } }],
      hooks: { setCursor: [plot => this.hover(plot.cursor.idx ?? null)] },
    }, [[], []], this.box);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.box);
  }

  size() { return { width: Math.max(100, this.box.clientWidth - 12), height: 130 }; }

  /** Null: it is not known, and nothing is drawn. */
  add(time, value) {
    this.times.push(time);
    this.values.push(value);
    if (this.times.length > MOST_POINTS) this.thin();
    this.empty.hidden = this.values.some(each => each !== null);
    this.plot.setData([this.times, this.values]);
    this.show();
  }

  /** Of two points one is kept, the higher one: the chart goes back to when the page was opened. */
  thin() {
    const pairs = this.times.length >> 1, higher = i => {
      const [one, two] = [this.values[2 * i], this.values[2 * i + 1]];
      return one === null || two === null ? one ?? two : Math.max(one, two);
    };
    const last = this.times.length % 2 ? [[this.times.at(-1)], [this.values.at(-1)]] : [[], []];
    this.values = [...Array.from({ length: pairs }, (_, i) => higher(i)), ...last[1]];
    this.times = [...Array.from({ length: pairs }, (_, i) => this.times[2 * i]), ...last[0]];
  }

  hover(index) {
    this.hovered = index === null ? null : this.times[index];
    this.show();
  }

  /** What is under the pointer, else what is now. */
  show() {
    const index = this.hovered === null ? this.times.length - 1 : this.times.indexOf(this.hovered);
    const value = this.values[index] ?? null, when = this.hovered === null ? "" : ` at ${new Date(1000 * this.times[index]).toLocaleTimeString()}`;
    this.now.textContent = value === null ? when && "nothing" + when : `${rounded(value)}${this.unit}${when}`;
  }
}

let charts = null, before = null;

/** The rise of a counter a second; a process that began anew, or is not heard, has none. */
const rise = (now, then, seconds) => Math.max(0, now - then) / seconds;
const total = values => values.reduce((sum, value) => sum + value, 0);

/** Seconds within which the given share of what was counted lies, in the middle of its bucket. */
function quantile(share, bounds, counts) {
  let left = share * total(counts);
  if (left === 0) return null;
  for (let i = 0; i < counts.length; i++) {
    const low = i ? bounds[i - 1] : 0, high = i < bounds.length ? bounds[i] : 2 * low;
    if (left <= counts[i]) return low + (high - low) * left / counts[i];
    left -= counts[i];
  }
  return null;
}

function draw(status, nodes) {
  charts ||= {
    connections: new Chart("connections", "Connections", "", "#3b82c4", "no comet has answered yet"),
    pushes: new Chart("pushes", "Pushes here", "/s", "#2a9d5f", "not known yet"),
    deliveries: new Chart("deliveries", "Deliveries", "/s", "#b07a1e", "not known yet"),
    latency: new Chart("latency", "Latency here, p99", " ms", "#b0457a", "no push through this process yet"),
  };
  const time = Date.now() / 1000, heard = nodes.filter(node => node.deliveries !== null);
  const now = { time, pushes: total(Object.values(status.pushes)), took: status.push_seconds, deliveries: new Map() };
  for (const node of heard) now.deliveries.set(node.rpc[0], node.deliveries);
  charts.connections.add(time, heard.length ? total(heard.map(node => node.connections)) : null);
  if (before !== null) {
    const seconds = time - before.time, known = [...now.deliveries].filter(([name]) => before.deliveries.has(name));
    charts.pushes.add(time, rise(now.pushes, before.pushes, seconds));
    charts.deliveries.add(time, total(known.map(([name, count]) => rise(count, before.deliveries.get(name), seconds))));
    const counts = now.took.counts.map((count, i) => Math.max(0, count - before.took.counts[i]));
    const p99 = quantile(0.99, now.took.bounds, counts);
    charts.latency.add(time, p99 === null ? null : 1000 * p99);
  }
  before = now;
}

/** Nobody answers: what was then is not known, and is not drawn. */
function drawNothing() {
  before = null;
  for (const chart of Object.values(charts || {})) chart.add(Date.now() / 1000, null);
}
