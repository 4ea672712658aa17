"use strict";
/* What pages can do besides forms: follow a request, drop pictures, hold a conversation. Pages work without it. */

const FRAGMENT = { "X-Lethe-Fragment": "1" };

/* Follow: [data-live] is fetched again while something in it says data-following. */
function follow(box) {
  let shown = "";
  async function look() {
    if (document.hidden) return setTimeout(look, 1000);
    let wait = 1000;
    try {
      const answer = await fetch(box.dataset.live, { headers: FRAGMENT, credentials: "same-origin" });
      if (answer.status === 401) return location.reload();
      if (answer.ok) {
        const html = await answer.text();
        if (html !== shown) {
          const log = box.querySelector(".log");
          const at = log ? log.scrollTop : 0;
          const before = box.querySelector("[data-state]")?.dataset.state;
          shown = html;
          box.innerHTML = html;
          const fresh = box.querySelector(".log");
          if (fresh) fresh.scrollTop = at;
          const part = box.querySelector("[data-state]");
          if (part && part.dataset.state !== before && !part.hasAttribute("data-following")) return location.reload();
        }
        if (!box.querySelector("[data-following]")) return;
      } else wait = 5000;
    } catch { wait = 5000; }
    setTimeout(look, wait);
  }
  setTimeout(look, 1000);
}

/* Pictures: drop them onto a [data-drop], see what was chosen. */
function pictures(zone) {
  const input = zone.querySelector("input[type=file]");
  const list = zone.querySelector(".previews");
  function show() {
    for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    list.replaceChildren(...[...input.files].map((file) => {
      const item = document.createElement("li");
      const image = document.createElement("img");
      image.src = URL.createObjectURL(file);
      image.alt = "";
      item.append(image, document.createElement("br"), `${file.name}, ${Math.ceil(file.size / 1024)} KiB`);
      return item;
    }));
  }
  input.addEventListener("change", show);
  zone.closest("form").addEventListener("reset", () => setTimeout(show));
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    const all = new DataTransfer();
    for (const file of [...input.files, ...event.dataTransfer.files]) if (file.type.startsWith("image/")) all.items.add(file);
    input.files = all.files;
    show();
  });
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function send(form, data, talk) {
  const buttons = [...form.querySelectorAll("button:not(:disabled)")];
  buttons.forEach((button) => { button.disabled = true; });
  talk.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action, { method: "POST", body: data, headers: FRAGMENT, credentials: "same-origin" });
    const part = document.createElement("div");
    part.innerHTML = await answer.text();
    talk.append(...part.childNodes);
    talk.lastElementChild?.scrollIntoView({ block: "nearest" });
    return answer.ok ? talk.querySelector(".turn:last-of-type") : null;
  } catch {
    const told = document.createElement("p");
    told.className = "wrong";
    told.textContent = "The service did not answer. Try again.";
    talk.append(told);
    return null;
  } finally {
    talk.removeAttribute("aria-busy");
    buttons.forEach((button) => { button.disabled = false; });
  }
}

/* The conversation: earlier turns are kept here and sent along, pictures as data URLs. */
function chat(form) {
  const talk = document.getElementById("talk");
  let earlier = [];
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = form.elements.message.value.trim();
    const files = [...form.elements.pictures.files];
    if (!text && !files.length) return form.elements.message.focus();
    const data = new FormData(form);
    data.set("earlier", JSON.stringify(earlier));
    const turn = await send(form, data, talk);
    if (turn) {
      const shown = await Promise.all(files.map(async (file) => ({ type: "image_url", image_url: { url: await dataUrl(file) } })));
      earlier.push({ role: "user", content: text ? [...shown, { type: "text", text }] : shown });
      earlier.push({ role: "assistant", content: turn.dataset.answer });
      form.reset();
    }
    form.elements.message.focus();
  });
  form.querySelector("[data-clear]").addEventListener("click", () => { earlier = []; talk.replaceChildren(); });
}

function attacks(form) {
  const talk = document.getElementById("talk");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const data = new FormData(form);
    data.set("attack", event.submitter.value);
    send(form, data, talk).then(() => event.submitter.focus());
  });
}

for (const box of document.querySelectorAll("[data-live][data-following]")) follow(box);
for (const zone of document.querySelectorAll("[data-drop]")) pictures(zone);
for (const form of document.querySelectorAll("[data-chat]")) chat(form);
for (const form of document.querySelectorAll("[data-attack]")) attacks(form);
for (const button of document.querySelectorAll("[data-confirm]")) {
  button.addEventListener("click", (event) => { if (!confirm(button.dataset.confirm)) event.preventDefault(); });
}
