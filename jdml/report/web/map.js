// The map: dots or pictures on a canvas; pointer, touch and arrow keys tell what is there.

section("map", data.map, (map, part) => {
  const canvas = find("canvas", part), tip = find(".tip", part), told = find("#map-told");
  const highlight = find("#highlight"), asPictures = find("#as-pictures");
  const pen = canvas.getContext("2d");
  const sheet = new Image();
  let view = { scale: 1, x: 0.5, y: 0.5 }, at = null, drag = null, inks = [];
  classOptions(highlight, new Set(map.item.map((item) => items.class[item])), "no class");
  if (!data.thumbs) asPictures.parentElement.remove();
  else { sheet.addEventListener("load", render); sheet.src = data.thumbs.uri; }
  find("#map-note").textContent = data.notes.map;

  /** Places of all points in CSS pixels. */
  function places() {
    const width = canvas.clientWidth, height = canvas.clientHeight, pad = 18;
    const size = Math.min(width - 2 * pad, (height - 2 * pad) / map.aspect) * view.scale;
    return map.x.map((x, i) => [
      width / 2 + (x - view.x) * size,
      height / 2 + (map.y[i] - view.y) * size * map.aspect,
    ]);
  }

  function render() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    inks = [colour("--wrong"), colour("--right"), colour("--muted")]; // by what `right` says
    const marked = at === null ? (highlight.value === "" ? null : Number(highlight.value)) : items.class[map.item[at]];
    const spots = places();
    const isMarked = (i) => marked !== null && items.class[map.item[i]] === marked;
    const order = [...spots.keys()].sort((a, b) => isMarked(a) - isMarked(b));
    for (const i of order) {
      pen.globalAlpha = marked === null || isMarked(i) ? 1 : 0.22;
      if (asPictures.checked && sheet.complete) thumbnail(i, ...spots[i], isMarked(i));
      else dot(i, ...spots[i], isMarked(i));
    }
    pen.globalAlpha = 1;
    if (at !== null) ring(...spots[at]);
    tipAt(at === null ? null : spots[at]);
  }

  function dot(i, x, y, big) {
    const size = big ? 5.5 : 3.5;
    pen.strokeStyle = pen.fillStyle = inks[map.right[i]];
    pen.beginPath();
    if (map.right[i] === 0) {
      pen.lineWidth = 2;
      pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size);
      pen.moveTo(x - size, y + size); pen.lineTo(x + size, y - size);
      pen.stroke();
    } else {
      pen.arc(x, y, size, 0, 7);
      pen.fill();
    }
  }

  function thumbnail(i, x, y, big) {
    const { side, cell, columns } = data.thumbs, size = big ? 30 : 20, item = map.item[i];
    const gutter = (cell - side) / 2;
    pen.drawImage(sheet, (item % columns) * cell + gutter, Math.floor(item / columns) * cell + gutter, side, side,
      x - size / 2, y - size / 2, size, size);
    pen.lineWidth = 2;
    pen.strokeStyle = inks[map.right[i]];
    pen.setLineDash(map.right[i] === 0 ? [3, 2] : []);
    pen.strokeRect(x - size / 2, y - size / 2, size, size);
    pen.setLineDash([]);
  }

  function ring(x, y) {
    pen.strokeStyle = colour("--text");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, asPictures.checked ? 22 : 10, 0, 7);
    pen.stroke();
  }

  function words(i) {
    if (map.right[i] === 2) return "no other image of its class";
    return map.right[i] ? "its nearest neighbour is right" : "its nearest neighbour is " + data.classes[map.found[i]];
  }

  function tipAt(spot) {
    tip.hidden = spot === null || spot[0] < 0 || spot[1] < 0 || spot[0] > canvas.clientWidth || spot[1] > canvas.clientHeight;
    if (tip.hidden) return;
    tip.style.left = clamp(spot[0] + (spot[0] > canvas.clientWidth / 2 ? -192 : 16), 0, Math.max(canvas.clientWidth - 176, 0)) + "px";
    tip.style.top = clamp(spot[1] - 40, 0, canvas.clientHeight - 90) + "px";
  }

  function pick(i) {
    if (i === at) return;
    at = i;
    told.textContent = "";
    if (i !== null) {
      const item = map.item[i];
      tip.replaceChildren(...(data.thumbs ? [picture(item)] : []),
        make("div", {}, make("b", {}, nameOf(item)), `row ${items.row[item]}: ${words(i)}`));
      told.textContent = `${nameOf(item)}, row ${items.row[item]}: ${words(i)}. Enter shows its class among the neighbours.`;
    }
    render();
  }

  function nearest(x, y, within, test = () => true) {
    let best = null, least = within;
    places().forEach(([px, py], i) => {
      const away = Math.hypot(px - x, py - y);
      if (away < least && test(px - x, py - y, i)) { best = i; least = away; }
    });
    return best;
  }

  const spot = (event) => { const frame = canvas.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = spot(event);
    if (drag && view.scale > 1) {
      const size = Math.min(canvas.clientWidth - 36, (canvas.clientHeight - 36) / map.aspect) * view.scale;
      view.x = clamp(drag.vx - (x - drag.x) / size, 0, 1);
      view.y = clamp(drag.vy - (y - drag.y) / (size * map.aspect), 0, 1);
      render();
    } else pick(nearest(x, y, 28));
  });
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = spot(event);
    drag = { x, y, vx: view.x, vy: view.y };
    pick(nearest(x, y, 28));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });
  canvas.addEventListener("pointerleave", (event) => { drag = null; if (event.pointerType === "mouse") pick(null); });
  canvas.addEventListener("blur", () => pick(null));

  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const way = WAYS[event.key];
    if (way) {
      event.preventDefault();
      const [x, y] = at === null ? [canvas.clientWidth / 2, canvas.clientHeight / 2] : places()[at];
      const ahead = (dx, dy, i) => i !== at && dx * way[0] + dy * way[1] > Math.abs(dx * way[1] + dy * way[0]);
      const next = at === null ? nearest(x, y, Infinity) : nearest(x, y, Infinity, ahead);
      if (next !== null) pick(next);
    } else if (event.key === "Escape") pick(null);
    else if (event.key === "Enter" && at !== null) showClass(items.class[map.item[at]]);
    else if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1.5 : 1 / 1.5);
  });

  function zoom(factor) {
    if (at !== null && factor) [view.x, view.y] = [map.x[at], map.y[at]];
    view.scale = factor ? clamp(view.scale * factor, 1, 20) : 1;
    if (view.scale === 1) view.x = view.y = 0.5;
    canvas.style.touchAction = view.scale > 1 ? "none" : "pan-y";
    render();
  }
  for (const button of part.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  for (const control of [highlight, asPictures]) control.addEventListener("change", render);
  find("form", part).addEventListener("submit", (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  new ResizeObserver(render).observe(canvas);
});
