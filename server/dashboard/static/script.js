// Keeps the page up to date: the server sends the parts of it that have changed, as HTML in which everything that comes
// from clients and models is escaped. Nothing here makes HTML of text.
"use strict";

const link = document.getElementById("link");
const source = new EventSource(document.body.dataset.live);

function say(state, text) {
  link.className = "link " + state;
  link.textContent = text;
}

// What a reader has opened, closed, scrolled or focused stays as it is when its part is replaced.
function keep(part) {
  const opened = new Map();
  for (const each of part.querySelectorAll("details[id]")) {
    if (each.dataset.touched) opened.set(each.id, each.open);
  }
  const scrolled = [...part.querySelectorAll("figure")].map((each) => each.scrollLeft);
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const nth = focused && focused.tagName === "FIGURE" ? [...part.querySelectorAll("figure")].indexOf(focused) : -1;
  const summary = focused && focused.tagName === "SUMMARY" ? focused.parentElement.id : "";
  return () => {
    for (const [id, open] of opened) {
      const each = document.getElementById(id);
      if (each) {
        each.open = open;
        each.dataset.touched = "1";
      }
    }
    const figures = part.querySelectorAll("figure");
    scrolled.forEach((left, i) => figures[i] && (figures[i].scrollLeft = left));
    if (!focused) return;
    let again = focused.id ? document.getElementById(focused.id) : null;
    if (nth >= 0) again = figures[nth];
    if (summary) again = document.querySelector(`#${summary} > summary`);
    if (again) again.focus({ preventScroll: true });
  };
}

function replace(name, html) {
  const part = document.getElementById("part-" + name);
  if (!part) return;
  const restore = keep(part);
  part.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  restore();
}

source.onopen = () => say("on", "live");
source.onerror = () => say("off", source.readyState === EventSource.CLOSED ? "not live" : "connecting");
source.onmessage = (message) => {
  for (const [name, html] of Object.entries(JSON.parse(message.data))) replace(name, html);
};
source.addEventListener("end", () => {
  source.close();
  say("", "ended");
});
addEventListener("pagehide", () => source.close());
addEventListener("pageshow", (event) => event.persisted && location.reload());
// Only a reader's own click or key counts as a touch: "toggle" also tells of what the server opens.
addEventListener("click", (event) => {
  const summary = event.target instanceof Element && event.target.closest("summary");
  if (summary) summary.parentElement.dataset.touched = "1";
});
