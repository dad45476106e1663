// Live fragments, forms without page loads, chart reading. No library, no build.
const $ = (s, r = document) => r.querySelector(s)

// Make node a look like node b; focus, open <details> and typed text survive.
function morph(a, b) {
  if (a.nodeType !== b.nodeType || a.nodeName !== b.nodeName) return a.replaceWith(b)
  if (a.nodeType !== 1) return a.nodeValue !== b.nodeValue && (a.nodeValue = b.nodeValue)
  for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value)
  for (const { name } of [...a.attributes]) if (!b.hasAttribute(name) && name !== 'open' && name !== 'data-at') a.removeAttribute(name)
  const x = [...a.childNodes].filter(n => !n.dataset?.keep), y = [...b.childNodes]
  y.forEach((n, i) => x[i] ? morph(x[i], n) : a.append(n))
  x.slice(y.length).forEach(n => n.remove())
}

// Live: one tick stream per browser (browsers allow six streams per origin), shared by all tabs.
// On a tick a visible page fetches itself again and morphs. While the stream is down the page says so and fades.
const base = document.body.dataset.base, bus = new BroadcastChannel('gyrostat' + base)
let seen = document.body.dataset.version, busy, again
async function refresh() {
  if (document.hidden || busy) return again = true
  busy = true; again = false
  const r = await fetch(location.href).catch(() => null)
  if (r?.ok) {
    const page = new DOMParser().parseFromString(await r.text(), 'text/html')
    for (const id of ['nav', 'main']) morph($('#' + id), page.getElementById(id))
  }
  setTimeout(() => { busy = false; if (again) refresh() }, 250)
}
function hear({ version, up }) {
  if (up !== undefined) { document.body.classList.toggle('stale', !up); $('#lost').hidden = up }
  if (version && version !== seen) { seen = version; refresh() }
}
const tell = m => { bus.postMessage(m); hear(m) }
function lead() {
  const es = new EventSource(base + '/events')
  es.onmessage = e => tell({ version: e.data, up: true })
  es.onerror = () => tell({ up: false })
  return es
}
bus.onmessage = e => hear(e.data)
if (navigator.locks) navigator.locks.request('gyrostat' + base, () => new Promise(lead))
else {  // plain http on a network address: no locks there, so hidden pages hang up
  let es = lead()
  document.addEventListener('visibilitychange', () => { es.close(); if (!document.hidden) es = lead() })
}
document.addEventListener('visibilitychange', () => again && refresh())

// Forms marked data-live post in place; the stream brings the new picture.
addEventListener('submit', async e => {
  if (!e.target.matches('form[data-live]')) return
  e.preventDefault()
  const body = new URLSearchParams(new FormData(e.target, e.submitter))
  const buttons = e.target.querySelectorAll('button')
  buttons.forEach(b => b.disabled = true)
  const r = await fetch(e.target.action, { method: 'POST', body, redirect: 'manual' }).catch(() => null)
  if (!r || !(r.ok || r.type === 'opaqueredirect')) {
    buttons.forEach(b => b.disabled = false)
    $('#said').textContent = r ? await r.text() : $('#lost').textContent
  } else { $('#main').focus({ preventScroll: true }); refresh() }
})

// Theme: follow the system until the reader chooses.
const root = document.documentElement
root.dataset.theme = localStorage.theme ?? ''
$('#theme').onclick = () => {
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  localStorage.theme = root.dataset.theme = dark ? 'light' : 'dark'
}
