"use strict";
// What all sections share: the data, elements, numbers as text, and pictures.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (selector, root = document) => root.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function short(x) {
  if (!Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(1).replace("e+", "e");
  return String(Number(x.toPrecision(3)));
}

function percent(x) {
  if (!Number.isFinite(x)) return "–";
  const p = 100 * x;
  const digits = p === 0 || p >= 1 ? 1 : Math.min(2 - Math.ceil(Math.log10(p)), 6);
  return p.toFixed(digits) + "%";
}

/** Shows a section and calls `fill` where there is data for it; else takes it and its link away. */
function section(name, content, fill) {
  const part = document.getElementById(name);
  if (content) {
    part.hidden = false;
    fill(content, part);
  } else {
    part.remove();
    find(`nav a[href="#${name}"]`).parentElement.remove();
  }
}

// ---------------------------------------------------------------- pictures

const items = data.items;
const nameOf = (item) => data.classes[items.class[item]];

if (data.thumbs) {
  // One rule holds the sheet of all thumbnails: elements only say which part of it they show.
  document.head.append(make("style", {}, `.picture.image { background-image: url(${data.thumbs.uri}); }`));
}

/** A thumbnail of an item, or the name of its class where there are no images. */
function picture(item, mark = "") {
  const about = `${nameOf(item)}, row ${items.row[item]}${mark && ": " + mark}`;
  const box = make("span", { class: `picture ${mark}`, role: "img", "aria-label": about, title: about });
  if (!data.thumbs) {
    box.classList.add("text");
    box.append(nameOf(item));
    return box;
  }
  const { side, cell, columns, rows } = data.thumbs;
  const across = (place, count) => ((place * cell + (cell - side) / 2) / (count * cell - side)) * 100;
  box.classList.add("image");
  box.style.backgroundSize = `${(100 * columns * cell) / side}% ${(100 * rows * cell) / side}%`;
  box.style.backgroundPosition =
    `${across(item % columns, columns)}% ${across(Math.floor(item / columns), rows)}%`;
  return box;
}

/** Options of a choice among classes, with an empty first one. */
function classOptions(select, classes, everything) {
  select.append(make("option", { value: "" }, everything));
  const sorted = [...classes].sort((a, b) => data.classes[a].localeCompare(data.classes[b]));
  for (const one of sorted) select.append(make("option", { value: one }, data.classes[one]));
}
