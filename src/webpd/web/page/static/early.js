// Before anything is drawn: the colours and the language chosen the last time.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  const here = new URL(location.href);
  const chosen = here.searchParams.get("lang");
  const stored = localStorage.getItem("lang");
  if (chosen) {
    localStorage.setItem("lang", chosen);
  } else if (stored && stored !== document.documentElement.lang) {
    here.searchParams.set("lang", stored);
    location.replace(here);
  }
} catch (error) {
  if (!(error instanceof DOMException)) throw error; // no storage: nothing was chosen
}
