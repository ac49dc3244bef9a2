// Keeps the table of mirrors up to date, and copies public keys. The page is whole without it.
"use strict";
(() => {
  const live = document.getElementById("live");

  const offerCopies = () => {
    for (const button of document.querySelectorAll("button[data-copy]")) button.hidden = false;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      // Without leave to write the clipboard the text is selected, to be copied by hand.
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
  });

  const states = () =>
    [...live.querySelectorAll("article")].map((mirror) => mirror.querySelector("h3").textContent.trim()).join("; ");

  const show = (table) => {
    const before = states();
    const focused = document.activeElement?.id;
    const open = new Map([...live.querySelectorAll("details[id]")].map((part) => [part.id, part.open]));
    live.innerHTML = table;
    for (const part of live.querySelectorAll("details[id]")) {
      if (open.has(part.id)) part.open = open.get(part.id);
    }
    if (focused) document.getElementById(focused)?.focus();
    offerCopies();
    if (states() !== before) document.getElementById("news").textContent = states();
  };

  offerCopies();
  if (live && window.EventSource) {
    const events = new EventSource(live.dataset.events);
    events.onmessage = (event) => show(event.data);
  }
})();
