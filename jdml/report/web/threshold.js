// The threshold: a slider over the histogram of similarities and the ROC.

section("threshold", data.pairs, (pairs) => {
  const bins = pairs.same.length;
  const at = (i) => pairs.low + ((pairs.high - pairs.low) * i) / bins;
  const written = (i) => at(i).toFixed(Math.max(3, digits((pairs.high - pairs.low) / bins)));
  const tar = above(pairs.same), far = above(pairs.other);
  const precision = (i) => {
    const right = tar[i] * pairs.same_total, wrong = far[i] * pairs.other_total;
    return right + wrong > 0 ? right / (right + wrong) : NaN;
  };
  const f1 = (i) => (2 * precision(i) * tar[i]) / (precision(i) + tar[i]) || 0;
  const slider = find("#slider");
  slider.max = bins;
  find("[data-similarity]").textContent = pairs.name;

  function told(i) {
    return `threshold ${written(i)}: TAR ${percent(tar[i])}, FAR ${percent(far[i])}, precision ${percent(precision(i))}`;
  }

  const redraw = [histogram(), roc()];
  function move(i) {
    slider.value = i;
    slider.setAttribute("aria-valuetext", told(i));
    find("#threshold-value").textContent = written(i);
    find("#tar").textContent = percent(tar[i]);
    find("#far").textContent = percent(far[i]);
    find("#precision").textContent = percent(precision(i));
    find("#f1").textContent = percent(f1(i));
    for (const render of redraw) render();
  }
  slider.addEventListener("input", () => move(Number(slider.value)));
  for (const [name, pick] of presets()) {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => move(pick()));
    find("#threshold .buttons").append(button);
  }
  find("#pairs-note").textContent = pairs.note;
  move(presets()[0][1]());

  /** The share at or above each edge of a bin. */
  function above(counts) {
    const sums = new Float64Array(bins + 1);
    for (let i = bins - 1; i >= 0; i--) sums[i] = sums[i + 1] + counts[i];
    return Array.from(sums, (sum) => sum / sums[0]);
  }

  function presets() {
    const first = (test) => { let i = 0; while (i < bins && !test(i)) i++; return i; };
    const best = () => {
      return tar.reduce((top, _, i) => (f1(i) > f1(top) ? i : top), 0);
    };
    return [
      ["Equal error", () => first((i) => far[i] <= 1 - tar[i])],
      ["FAR 1%", () => first((i) => far[i] <= 0.01)],
      ["FAR 0.1%", () => first((i) => far[i] <= 0.001)],
      ["Best F1", best],
    ];
  }

  function histogram() {
    const wide = Math.ceil(bins / 80), count = Math.ceil(bins / wide);
    const x = Array.from({ length: count }, (_, b) => at(Math.min((b + 0.5) * wide, bins)));
    const shares = (counts) => {
      const total = counts.reduce((a, b) => a + b, 0);
      return x.map((_, b) => counts.slice(b * wide, (b + 1) * wide).reduce((a, c) => a + c, 0) / total);
    };
    const same = shares(pairs.same), other = shares(pairs.other);
    return chart(find("#histogram"), {
      title: "Similarities", legend: true,
      label: "Histogram of similarities of pairs of one class and of two",
      x: { title: pairs.name, min: pairs.low, max: pairs.high },
      y: { title: "share of pairs", min: 0, max: Math.max(...same, ...other) * 1.05, text: (y) => short(100 * y) + "%" },
      series: [
        { name: "same class", colour: "--right", fill: true, x, y: same },
        { name: "different classes", colour: "--wrong", fill: true, dash: "5 3", x, y: other },
      ],
      rest: "Share of each kind of pair. Drag to move the threshold.",
      tell: (b) => `near ${written((b + 0.5) * wide)}: ${percent(same[b])} of the same, ${percent(other[b])} of the different`,
      start: () => Math.round(Number(slider.value) / wide - 0.5),
      onPick: (b) => move(Math.min(Math.round((b + 0.5) * wide), bins)),
      extra: (svg, sx, sy, box) => {
        const x0 = sx(at(Number(slider.value)));
        svg.append(draw("line", { class: "limit", x1: x0, x2: x0, y1: box.top, y2: box.bottom }));
        const left = x0 > (box.left + box.right) / 2;
        svg.append(draw("text", { class: "title", x: x0 + (left ? -6 : 6), y: box.top + 10, "text-anchor": left ? "end" : "start" }, "accepted →"));
      },
    });
  }

  function roc() {
    const least = 10 ** Math.floor(Math.log10(1 / pairs.other.reduce((a, b) => a + b, 0)));
    const chosen = [...far.keys()].reverse().filter((i, n, all) => !n || far[i] !== far[all[n - 1]] || tar[i] !== tar[all[n - 1]]);
    return chart(find("#roc"), {
      title: "ROC", label: "ROC: true accepts over false accepts",
      x: { title: "false accept rate (FAR)", min: Math.max(least, 1e-6), max: 1, log: true, text: (x) => Number((100 * x).toPrecision(1)).toFixed(Math.max(0, Math.round(-Math.log10(100 * x)))) + "%" },
      y: { title: "TAR", min: 0, max: 1, text: (y) => (100 * y).toFixed(0) + "%" },
      series: [{ name: "TAR", colour: "--right", x: chosen.map((i) => far[i]), y: chosen.map((i) => tar[i]) }],
      rest: "True accept rate over false accept rate, on a logarithmic axis.",
      tell: (n) => told(chosen[n]),
      start: () => chosen.indexOf(chosen.find((i) => i <= Number(slider.value))),
      stride: 5,
      onPick: (n) => move(chosen[n]),
      extra: (svg, sx, sy) => {
        const i = Number(slider.value);
        svg.append(draw("circle", { class: "dot", cx: sx(far[i]), cy: sy(tar[i]), r: 7, fill: "var(--text)" }));
      },
    });
  }
});
