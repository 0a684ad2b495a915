// Queries and their nearest neighbours, by class and by order, a page at a time.

const PAGE = 12;
let showClass = () => {};

section("gallery", data.gallery, (gallery, part) => {
  const filter = find("#class-filter"), order = find("#order"), onlyWrong = find("#only-wrong");
  let shown = PAGE;
  classOptions(filter, new Set(gallery.map((query) => items.class[query.item])), "all classes");
  if (data.notes.gallery) find("#gallery-note").textContent = data.notes.gallery;

  function chosen() {
    const found = gallery.filter(
      (query) =>
        (filter.value === "" || items.class[query.item] === Number(filter.value)) &&
        (!onlyWrong.checked || !query.right[0])
    );
    const sign = order.value === "best" ? -1 : 1;
    return order.value === "class"
      ? found.sort((a, b) => items.class[a.item] - items.class[b.item] || a.score - b.score)
      : found.sort((a, b) => sign * (a.score - b.score));
  }

  function show() {
    const found = chosen();
    find("#queries").replaceChildren(...found.slice(0, shown).map(row));
    find("#more").hidden = found.length <= shown;
    find("#gallery-count").textContent = `${Math.min(shown, found.length)} of ${found.length} queries`;
  }

  function row(query) {
    const asked = make("div", { class: "asked" }, picture(query.item),
      make("div", {}, make("b", {}, nameOf(query.item)), make("small", {}, `score ${query.score.toFixed(2)}`)));
    const found = make("ol", { class: "found", "aria-label": "Nearest neighbours" });
    query.found.forEach((item, i) => {
      const mark = query.right[i] ? "right" : "wrong";
      const name = data.thumbs ? [make("span", {}, nameOf(item))] : [];
      found.append(make("li", {}, picture(item, mark), ...name, make("span", {}, query.near[i].toFixed(2))));
    });
    return make("li", { class: "query" }, asked, found);
  }

  for (const control of [filter, order, onlyWrong]) {
    control.addEventListener("change", () => { shown = PAGE; show(); });
  }
  find("form", part).addEventListener("submit", (event) => event.preventDefault());
  find("#more").addEventListener("click", () => {
    const before = shown;
    shown += 2 * PAGE;
    show();
    const next = find("#queries").children[before];
    if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
  });
  showClass = (one) => {
    filter.value = String(one);
    onlyWrong.checked = false;
    filter.dispatchEvent(new Event("change"));
    part.scrollIntoView();
    filter.focus({ preventScroll: true });
  };
  show();
});
