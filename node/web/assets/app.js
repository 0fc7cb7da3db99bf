// What HTML alone lacks: a form is sent once however often its button is
// pressed, a page whose live figures stopped says so, and what somebody opened
// on it stays open when the figures change.
"use strict"

document.addEventListener("submit", e => {
  if (e.target.method !== "post" || e.defaultPrevented) return
  for (const b of e.target.elements) {
    if (b.type !== "submit") continue
    b.disabled = true
    b.dataset.label = b.textContent
    if (b === (e.submitter ?? b)) b.textContent = b.dataset.busy ?? e.target.dataset.busy ?? b.textContent
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
let opened = [], focused = ""
document.addEventListener("htmx:sseBeforeMessage", e => {
  opened = [...e.target.querySelectorAll("details[open][id]")].map(d => d.id)
  focused = e.target.contains(document.activeElement) ? document.activeElement.closest("[id]").id : ""
})
document.addEventListener("htmx:sseMessage", e => {
  for (const id of opened) e.target.querySelector(`details[id="${id}"]`)?.setAttribute("open", "")
  const again = focused && e.target.querySelector(`[id="${focused}"]`)
  if (again) (again.querySelector("summary") ?? again).focus({ preventScroll: true })
  opened = []
  focused = ""
})
