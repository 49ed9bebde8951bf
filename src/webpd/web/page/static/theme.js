// The colours: the reader's choice, or the system's. early.js sets them before anything is drawn.

import { t } from "./words.js";

const THEMES = ["auto", "light", "dark"];
const root = document.documentElement;
const button = document.getElementById("theme");

function show() {
  const name = t[`theme_${root.dataset.theme ?? "auto"}`];
  document.getElementById("theme-name").textContent = name;
  button.title = `${t.theme}: ${name}`;
}

/** Let the button go through the colours, and keep what was chosen. */
export function chooseTheme() {
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
    if (next === "auto") {
      delete root.dataset.theme;
      localStorage.removeItem("theme");
    } else {
      root.dataset.theme = next;
      localStorage.setItem("theme", next);
    }
    show();
  });
  show();
}
