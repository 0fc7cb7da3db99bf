// What HTML alone lacks: a form is sent once however often its button is
// pressed, and a page whose live figures stopped says so.
"use strict"

document.addEventListener("submit", e => {
  if (e.target.method !== "post" || e.defaultPrevented) return
  for (const b of e.target.elements) {
    if (b.type !== "submit") continue
    b.disabled = true
    b.dataset.label = b.textContent
    b.textContent = e.target.dataset.busy ?? b.textContent
  }
})
window.addEventListener("pageshow", () => { // back from the page that followed
  for (const b of document.querySelectorAll("button[data-label]")) {
    b.disabled = false
    b.textContent = b.dataset.label
    delete b.dataset.label
  }
})
document.addEventListener("htmx:sseError", e => e.target.classList.add("stopped"))
document.addEventListener("htmx:sseOpen", e => e.target.classList.remove("stopped"))
