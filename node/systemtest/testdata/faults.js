// What is wrong with the page: wider than its window, text too faint, controls
// without a name, headings that are missing.
(() => {
  const out = []
  const seen = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0
  // What only a screen reader is to find is clipped away, or out of the window.
  const hidden = e => {
    if (e.closest(".skip")) return true
    for (; e; e = e.parentElement) if (getComputedStyle(e).clipPath.startsWith("inset(50%")) return true
    return false
  }
  const where = e => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className && typeof e.className === "string" ? "." + e.className : "") +
    " " + JSON.stringify((e.innerText ?? e.value ?? "").trim().slice(0, 40))

  const root = document.documentElement
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("body *")].filter(e => e.scrollWidth > root.clientWidth + 1 || e.getBoundingClientRect().right > root.clientWidth + 1)
    const reach = e => { const r = e.getBoundingClientRect(); return ` from ${r.left | 0} to ${r.right | 0}, ${e.scrollWidth} px inside, ${hidden(e) ? "clipped" : seen(e) ? "seen" : "not seen"}` }
    out.push("the page is " + root.scrollWidth + " px wide in a window of " + root.clientWidth + ": " + wide.filter(e => !hidden(e)).slice(0, 6).map(e => where(e) + reach(e)).join("; "))
  }

  for (const card of document.querySelectorAll(".card, .note")) {
    if (!seen(card)) continue
    const edge = card.getBoundingClientRect()
    const beyond = [...card.querySelectorAll("*")].filter(e => seen(e) && !hidden(e) && !e.closest(".log") &&
      (e.getBoundingClientRect().right > edge.right + 1 || e.getBoundingClientRect().left < edge.left - 1))
    if (beyond.length > 0) out.push("sticks out of its card: " + beyond.slice(0, 2).map(where).join(", "))
  }

  const rgb = c => c.match(/[\d.]+/g).map(Number)
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor)
      if (c.length === 3 || c[3] === 1) return c
    }
    return [255, 255, 255]
  }
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) }
  const contrast = (e, style, what) => {
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700
    const least = size >= 24 || (size >= 18.66 && bold) ? 3 : 4.5
    const got = ratio(rgb(style.color), ground(e))
    if (got < least) out.push("contrast " + got.toFixed(2) + ", want " + least + ": " + what + " " + where(e))
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const done = new Set()
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || done.has(e) || !seen(e) || hidden(e)) continue
    done.add(e)
    contrast(e, getComputedStyle(e), "text")
  }

  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (!seen(e)) continue
    if (e.labels.length === 0 && !e.getAttribute("aria-label")) out.push("no label: " + where(e))
    contrast(e, getComputedStyle(e), "value")
    if (e.placeholder) contrast(e, { ...{ fontSize: "16px", fontWeight: "400" }, color: getComputedStyle(e, "::placeholder").color }, "placeholder")
    if (e.getBoundingClientRect().height < 24) out.push("too small to touch: " + where(e))
  }
  for (const e of document.querySelectorAll("button, a.button, summary, nav a")) {
    if (!seen(e)) continue
    if (!e.innerText.trim() && !e.getAttribute("aria-label")) out.push("no name: " + where(e))
    if (e.getBoundingClientRect().height < 24) out.push("too small to touch: " + where(e))
  }
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) out.push("no alternative text: " + where(e))
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id)
  for (const id of new Set(ids.filter((v, i) => ids.indexOf(v) !== i))) out.push("the id " + id + " is there twice")
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    for (const id of (e.getAttribute("aria-labelledby") ?? e.getAttribute("aria-describedby")).split(" ")) {
      if (!document.getElementById(id)) out.push("refers to nothing, #" + id + ": " + where(e))
    }
  }
  if (document.querySelectorAll("h1").length !== 1) out.push("there is not exactly one h1")
  if (!document.title || !root.lang) out.push("no title or no language")
  let level = 0
  for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
    const n = Number(h.tagName[1])
    if (n > level + 1) out.push("a heading is skipped before " + where(h))
    level = n
  }
  return out
})()
