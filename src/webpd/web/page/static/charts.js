// Small charts, drawn as SVG.

import { t } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240, HEIGHT = 48;

/** Draw one bar for each value; `name` turns a value into words. */
export function bars(svg, values, name) {
  const most = Math.max(...values, 0);
  const step = WIDTH / Math.max(values.length, 1);
  begin(svg, values, most, name);
  values.forEach((value, place) => {
    const height = value > 0 ? Math.max(2, (value / most) * HEIGHT) : 1;
    add(svg, "rect", {
      class: value > 0 ? "bar" : "bar none", x: place * step, y: HEIGHT - height, width: Math.max(step - 1, 0.5), height,
    });
  });
}

/** Draw a line with what is below it filled. */
export function line(svg, values, name) {
  const most = Math.max(...values, 0);
  begin(svg, values, most, name);
  if (values.length < 2) return;
  const step = WIDTH / (values.length - 1);
  const points = values.map((value, place) => `${place * step},${HEIGHT - 1 - (most ? (value / most) * (HEIGHT - 3) : 0)}`);
  add(svg, "path", { class: "area", d: `M0,${HEIGHT} L${points.join(" L")} L${WIDTH},${HEIGHT}z` });
  add(svg, "path", { class: "line", d: `M${points.join(" L")}` });
}

function begin(svg, values, most, name) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const told = `${svg.dataset.label}: ${t.now} ${name(values.at(-1) ?? 0)}, ${t.most} ${name(most)}`;
  svg.setAttribute("aria-label", told);
  add(svg, "title", {}).textContent = told;
}

function add(parent, kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}
