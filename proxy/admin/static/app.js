// Keeps the overview fresh, and opens the message that was chosen in a ladder. All pages work without it.
"use strict";

const live = document.getElementById("live");
if (live) {
  setInterval(async () => {
    if (document.hidden || live.contains(document.activeElement)) return;
    try {
      const answer = await fetch(live.dataset.refresh, { credentials: "same-origin", redirect: "manual" });
      // The server has escaped every value in this part of the page.
      if (answer.ok) live.innerHTML = await answer.text();
      else if (answer.type === "opaqueredirect") location.reload();
    } catch {
      // The next round may reach it.
    }
  }, 3000);
}

function showMessage(focus) {
  const found = /^#m[0-9]+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  for (const rung of document.querySelectorAll(".rung[aria-current]")) rung.removeAttribute("aria-current");
  if (!found) return;
  found.open = true;
  document.querySelector(`.rung[href="${location.hash}"]`)?.setAttribute("aria-current", "true");
  found.scrollIntoView();
  if (focus) found.querySelector("summary").focus({ preventScroll: true });
}

window.addEventListener("hashchange", () => showMessage(true));
for (const rung of document.querySelectorAll(".rung")) {
  rung.addEventListener("click", () => {
    if (location.hash === rung.getAttribute("href")) showMessage(true);
  });
}
showMessage(false);
