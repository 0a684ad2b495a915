// Classes that are taken for each other: the pairs confused most, and a table of their classes.

section("confusion", data.confusion, (confusion, part) => {
  for (const pair of confusion.pairs) {
    const names = `${data.classes[pair.asked]} → ${data.classes[pair.found]}`;
    const button = make("button", { type: "button", "aria-label": `Show ${data.classes[pair.asked]} among the neighbours` }, "Show");
    button.addEventListener("click", () => showClass(pair.asked));
    find(".confused").append(make("li", {},
      ...(data.thumbs ? [picture(pair.items[0]), picture(pair.items[1])] : []),
      make("div", {}, make("b", {}, names), make("small", {}, `${pair.count} of ${pair.of} (${(100 * pair.count / pair.of).toFixed(0)}%)`)),
      ...(pair.shown ? [button] : [])));
  }
  if (!confusion.pairs.length) find(".confused").append(make("li", {}, "None: every nearest neighbour is right."));
  const table = find(".matrix"), { classes, counts, others } = confusion.matrix;
  const head = make("tr", {}, make("td", {}), ...classes.map((one) => make("th", { scope: "col" }, data.classes[one])));
  if (others) head.append(make("th", { scope: "col" }, "others"));
  table.append(make("thead", {}, head));
  const body = make("tbody");
  classes.forEach((one, i) => {
    const row = others ? [...counts[i], others[i]] : counts[i];
    const total = row.reduce((a, b) => a + b, 0) || 1;
    const cells = row.map((count, j) => {
      const cell = make("td", {}, count ? ((100 * count) / total).toFixed(0) : "");
      if (count) cell.style.background = `color-mix(in srgb, var(${i === j ? "--right" : "--wrong"}) ${Math.round((70 * count) / total)}%, transparent)`;
      return cell;
    });
    body.append(make("tr", {}, make("th", { scope: "row" }, data.classes[one]), ...cells));
  });
  table.append(body);
});
