// Recall at k, and the curves of training.

section("recall", data.recall, (recall, part) => {
  const line = { name: "recall", colour: "--right", x: recall.k, y: recall.value, low: recall.low, high: recall.high };
  chart(find("figure", part), {
    label: "Recall at k, from " + percent(recall.value[0]) + " at 1 to " + percent(recall.value.at(-1)) + " at " + recall.k.at(-1),
    x: { title: "k, number of neighbours", min: 1, max: Math.max(recall.k.at(-1), 2), log: true, ticks: recall.k, text: String },
    y: { title: "recall", min: Math.max(0, Math.floor(10 * Math.min(...recall.low)) / 10), max: 1, text: (y) => (100 * y).toFixed(0) + "%" },
    series: [line],
    rest: "The band is the " + data.confidence + " interval. Point at the curve, or use the arrow keys.",
    tell: (i) => `recall@${recall.k[i]} = ${percent(recall.value[i])} (${percent(recall.low[i])} to ${percent(recall.high[i])})`,
  });
});

section("health", data.health, (health, part) => {
  for (const { name, value, about } of health) {
    find(".cards", part).append(make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, about))));
  }
  for (const one of data.training || []) {
    const values = one.y.filter(Number.isFinite);
    const log = one.log && Math.min(...values) > 0 && Math.max(...values) > 30 * Math.min(...values);
    const pad = (Math.max(...values) - Math.min(...values)) * 0.05 || Math.abs(values[0]) * 0.1 || 1;
    const min = one.min ?? (log ? Math.min(...values) : Math.min(...values) - pad);
    const figure = make("figure", { class: "chart" });
    find(".charts", part).append(figure);
    chart(figure, {
      title: one.title,
      label: `${one.title}: ${short(values[0])} at first, ${short(values.at(-1))} at the end`,
      x: { title: "training step", min: Math.min(...one.x), max: Math.max(...one.x) },
      y: { title: one.title, min, max: one.max ?? Math.max(...values) + (log ? 0 : pad), log },
      series: [{ name: one.title, colour: "--right", x: one.x, y: one.y }],
      rest: one.about,
      tell: (i) => `step ${one.x[i]}: ${short(one.y[i])}`,
    });
  }
});
