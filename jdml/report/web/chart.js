// A line chart in SVG that is drawn anew at every width, so that its text stays readable. Pointer
// and arrow keys move over the points, and what is there is said below.

const MARGIN = { left: 48, right: 14, top: 10, bottom: 40 };

/**
 * spec: label (for readers of the screen), x and y: {title, min, max, log, ticks, text(value)},
 * series: [{name, colour, dash, fill, x, y, low, high}], tell(i) -> text of point i of series 0,
 * and if wanted title, legend, extra(svg, sx, sy, box), onPick(i).
 */
function chart(host, spec) {
  const parts = spec.title ? [make("h3", {}, spec.title)] : [];
  if (spec.legend) parts.push(legend(spec.series));
  const svg = draw("svg", { role: "img", tabindex: "0", "aria-label": spec.label });
  const told = make("figcaption", { "aria-live": "polite" });
  host.append(...parts, svg, told);
  let at = null;

  function render() {
    const width = Math.max(host.clientWidth, 200);
    const height = clamp(width * 0.55, 190, 320);
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    const sx = scale(spec.x, box.left, box.right);
    const sy = scale(spec.y, box.bottom, box.top);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    axes(svg, spec, sx, sy, box);
    for (const one of spec.series) curve(svg, one, sx, sy, box);
    if (spec.extra) spec.extra(svg, sx, sy, box);
    if (at !== null) cross(svg, spec.series[0], at, sx, sy, box);
    told.textContent = at === null ? spec.rest || "" : spec.tell(at);
    return { sx, box, width };
  }

  function go(index) {
    at = index === null ? null : clamp(index, 0, spec.series[0].x.length - 1);
    if (at !== null && spec.onPick) spec.onPick(at);
    render();
  }

  function point(event) {
    const { sx, width } = render();
    const frame = svg.getBoundingClientRect();
    const x = ((event.clientX - frame.left) * width) / frame.width;
    let best = 0;
    spec.series[0].x.forEach((value, i, all) => {
      if (Math.abs(sx(value) - x) < Math.abs(sx(all[best]) - x)) best = i;
    });
    go(best);
  }

  svg.addEventListener("pointermove", (event) => (!spec.onPick || event.buttons) && point(event));
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", () => go(null));
  svg.addEventListener("blur", () => go(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const start = at === null ? (spec.start ? spec.start() : step > 0 ? -1 : spec.series[0].x.length) : at;
    go(start + step * (spec.stride || 1));
  });
  new ResizeObserver(render).observe(host);
  return render;
}

function scale(axis, from, to) {
  const f = axis.log ? Math.log10 : (x) => x;
  const low = f(axis.min), high = f(axis.max);
  return (x) => from + ((clamp(f(axis.log ? Math.max(x, axis.min) : x), low, high) - low) / (high - low || 1)) * (to - from);
}

/** How a round number is written when the next one is `step` away. */
const digits = (step) => clamp(Math.ceil(-Math.log10(step) - 1e-9), 0, 12);

/** Round numbers over a range, or powers of ten and, where these are few, 2 and 5 times them. */
function ticks(axis, count) {
  if (axis.ticks) return axis.ticks;
  const found = [];
  if (axis.log) {
    const first = Math.floor(Math.log10(axis.min)), last = Math.ceil(Math.log10(axis.max));
    const times = last - first > 3 ? [1] : [1, 2, 5];
    for (let p = first; p <= last; p++) found.push(...times.map((m) => m * 10 ** p));
    return found.filter((value) => value >= axis.min * 0.999 && value <= axis.max * 1.001);
  }
  const rough = (axis.max - axis.min) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  for (let i = Math.ceil(axis.min / step - 1e-9); i * step <= axis.max + 1e-9 * step; i++) found.push(i * step);
  return found;
}

function axes(svg, spec, sx, sy, box) {
  const writer = (axis, values) =>
    axis.text || (axis.log || values.length < 2 ? short : (value) => value.toFixed(digits(values[1] - values[0])));
  const heights = ticks(spec.y, 5), places = ticks(spec.x, (box.right - box.left) / 80);
  const tall = writer(spec.y, heights), wide = writer(spec.x, places);
  for (const value of heights) {
    svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: sy(value), y2: sy(value) }));
    svg.append(draw("text", { x: box.left - 8, y: sy(value) + 4, "text-anchor": "end" }, tall(value)));
  }
  let end = -Infinity;
  for (const value of places) {
    const words = wide(value), half = words.length * 3.6;
    if (sx(value) - half < end) continue; // no label over another
    end = sx(value) + half + 6;
    svg.append(draw("line", { class: "grid", x1: sx(value), x2: sx(value), y1: box.bottom, y2: box.bottom + 5 }));
    svg.append(draw("text", { x: sx(value), y: box.bottom + 18, "text-anchor": "middle" }, words));
  }
  svg.append(draw("text", { class: "title", x: (box.left + box.right) / 2, y: box.bottom + 35, "text-anchor": "middle" }, spec.x.title));
}

function curve(svg, one, sx, sy, box) {
  const place = (ys) => one.x.map((x, i) => [sx(x), sy(ys[i])]).filter((p, i) => Number.isFinite(ys[i]));
  const path = (points) => "M" + points.map((p) => p.map((c) => c.toFixed(1)).join(",")).join("L");
  const points = place(one.y);
  if (!points.length) return;
  if (one.low) {
    const band = path([...place(one.high), ...place(one.low).reverse()]) + "Z";
    svg.append(draw("path", { d: band, fill: `var(${one.colour}-soft)` }));
  }
  if (one.fill) {
    const closed = `${path(points)}L${points.at(-1)[0].toFixed(1)},${box.bottom}L${points[0][0].toFixed(1)},${box.bottom}Z`;
    svg.append(draw("path", { d: closed, fill: `var(${one.colour}-soft)` }));
  }
  const line = { d: path(points), fill: "none", stroke: `var(${one.colour})`, "stroke-width": 2, "stroke-linejoin": "round" };
  if (one.dash) line["stroke-dasharray"] = one.dash;
  svg.append(draw("path", line));
  if (points.length <= 16 && !one.fill) {
    for (const [x, y] of points) svg.append(draw("circle", { class: "dot", cx: x, cy: y, r: 4, fill: `var(${one.colour})` }));
  }
}

function cross(svg, one, at, sx, sy, box) {
  const x = sx(one.x[at]);
  svg.append(draw("line", { class: "cross", x1: x, x2: x, y1: box.top, y2: box.bottom }));
  if (Number.isFinite(one.y[at])) {
    svg.append(draw("circle", { class: "dot", cx: x, cy: sy(one.y[at]), r: 5.5, fill: `var(${one.colour})` }));
  }
}

function legend(series) {
  const list = make("ul", { class: "legend" });
  for (const one of series) {
    const line = make("i");
    line.style.borderTopColor = `var(${one.colour})`;
    if (one.dash) line.style.borderTopStyle = "dashed";
    list.append(make("li", {}, line, one.name));
  }
  return list;
}
