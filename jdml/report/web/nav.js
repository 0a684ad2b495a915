// Marks the link of the section in view.

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(entry.target.id), list = link.closest("ul");
    link.setAttribute("aria-current", "true");
    list.scrollLeft = link.offsetLeft - (list.clientWidth - link.offsetWidth) / 2;
  }
}, { rootMargin: "-20% 0px -70% 0px" });
for (const part of document.querySelectorAll("main section")) watch.observe(part);
