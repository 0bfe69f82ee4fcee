// What is written is saved by itself, and two editors at once are told of each other.
// Every form works without this script; it only sends the same forms.
const saving = document.getElementById("saving");
const slot = saving.dataset.slot;
const editing = saving.dataset.editing === "yes";
const PAUSE = 700;
const TRY_AGAIN = 3000;
const LOOK = 5000;
document.documentElement.classList.add("js");

// What was said in answer to a press goes when it was read.
if (saving.textContent) {
  setTimeout(() => {
    if (!saving.classList.contains("failed")) say("");
    document.getElementById("back")?.remove();
  }, 12000);
}
// Nor is it said again to whoever comes back or loads the page once more.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);

const forms = editing ? [...document.querySelectorAll("[data-autosave]")] : [];
const timers = new Map();
const underway = new Map();
let isOut = false;

function fields(form) {
  return [...form.elements].filter((field) => form.elements[`was_${field.name}`]);
}
function changed(form) {
  return fields(form).filter((field) => field.value !== form.elements[`was_${field.name}`].value);
}
function pageOf(form) {
  return form.elements.page ? form.elements.page.value : "";
}
function keyOf(form, field) {
  return `desk ${slot} ${pageOf(form)} ${field.name}`;
}
function say(text, failed = false) {
  saving.textContent = text;
  saving.classList.toggle("failed", failed);
}
function remember(form) {
  // A closed tab, a dead server or a lost line must lose nothing.
  for (const field of fields(form)) {
    const was = form.elements[`was_${field.name}`].value;
    try {
      if (field.value === was) localStorage.removeItem(keyOf(form, field));
      else localStorage.setItem(keyOf(form, field), JSON.stringify({ was, now: field.value }));
    } catch {
      return;
    }
  }
}
// The server keeps a text without the blanks that say nothing.
function isSame(one, other) {
  const [a, b] = [one, other].map((text) => text.trim().split(/\s+/).join(" "));
  return a === b;
}
function restore(form) {
  for (const field of fields(form)) {
    const was = form.elements[`was_${field.name}`].value;
    const key = keyOf(form, field);
    try {
      const kept = JSON.parse(localStorage.getItem(key));
      const lost = () => JSON.parse(localStorage.getItem(`${key} lost`)) ?? [];
      if (kept && !isSame(kept.was, was)) {
        if (!isSame(kept.now, was)) localStorage.setItem(`${key} lost`, JSON.stringify([...lost(), kept.now]));
        localStorage.removeItem(key);
      } else if (kept) {
        field.value = kept.now;
        later(form, 0);
      }
      for (const text of lost()) offer(field, text, `${key} lost`);
    } catch {
      return;
    }
  }
}
// Another wrote here since, so what was kept is not put in their place by itself.
function offer(field, text, key) {
  const forget = () => {
    const lost = JSON.parse(localStorage.getItem(key)).filter((each) => each !== text);
    if (lost.length) localStorage.setItem(key, JSON.stringify(lost));
    else localStorage.removeItem(key);
  };
  box(field, "kept", `You wrote this here and it was not saved: “${text}”`, {
    "Use it": () => {
      put(field, text);
      forget();
    },
    "Forget it": forget,
  });
}
function put(field, text) {
  field.value = text;
  field.dispatchEvent(new Event("input"));
}

// Whoever is asked whose words stay is not asked again before they have answered.
function isAsked(form) {
  return form.querySelector(".asked") !== null;
}
function later(form, pause = PAUSE) {
  clearTimeout(timers.get(form));
  if (isAsked(form)) return;
  timers.set(form, setTimeout(() => save(form), pause));
}

async function save(form) {
  clearTimeout(timers.get(form));
  timers.delete(form);
  if (underway.has(form)) {
    await underway.get(form);
  }
  if (!changed(form).length) return true;
  if (isAsked(form)) {
    say("Say first whose words stay.", true);
    return false;
  }
  if (!form.checkValidity()) {
    say("A title cannot be empty.", true);
    return false;
  }
  const sent = Object.fromEntries(fields(form).map((field) => [field.name, field.value]));
  const body = new URLSearchParams(new FormData(form));
  say("Saving …");
  const asked = send(form, body, sent);
  underway.set(form, asked);
  const done = await asked;
  underway.delete(form);
  if (done && changed(form).length) later(form);
  return done;
}

function post(form, body, more = {}) {
  const asked = { method: "POST", body, headers: { Accept: "application/json" }, ...more };
  return fetch(form.action, asked).catch(() => null);
}
// Whoever has signed in on another page has a session with another token.
async function takeToken() {
  const page = await fetchPage();
  const token = page && page.querySelector("[name=csrf]").value;
  for (const field of document.querySelectorAll("[name=csrf]")) if (token) field.value = token;
  return token;
}

async function send(form, body, sent) {
  let answer = await post(form, body);
  if (answer && answer.status === 403) {
    const token = await takeToken();
    if (token) {
      body.set("csrf", token);
      answer = await post(form, body);
    }
  }
  if (!answer || answer.status >= 500 || answer.status === 401) {
    isOut = answer?.status === 401;
    say(isOut ? "Not saved: you are signed out. Sign in on another page." : "Not saved yet. It is kept here and tried again.", true);
    later(form, TRY_AGAIN);
    return false;
  }
  const said = await answer.json().catch(() => ({}));
  for (const [name, row] of Object.entries(said.written ?? {})) {
    form.elements[`was_${name}`].value = sent[name];
    tell(form, name, row);
  }
  if (answer.status === 409 && said.field) return ask(form, said);
  if (!answer.ok) {
    say(`${said.trouble || said.detail || "It could not be saved. Load the page again."} What you wrote is kept here.`, true);
    return false;
  }
  for (const [name, value] of Object.entries(sent)) form.elements[`was_${name}`].value = value;
  remember(form);
  know(said.seen);
  isOut = false;
  say("Saved.");
  await refresh();
  return true;
}

// A question at a field, and what may be answered.
function box(field, name, text, answers) {
  const made = document.createElement("div");
  made.className = `trouble ${name}`;
  made.setAttribute("role", "alert");
  const asked = document.createElement("p");
  asked.textContent = text;
  made.append(asked);
  for (const [label, act] of Object.entries(answers)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = made.querySelector("button") ? "plain" : "";
    button.textContent = label;
    button.addEventListener("click", async () => {
      await act();
      made.remove();
      field.focus();
      later(field.form, 0);
    });
    made.append(button, " ");
  }
  field.after(made);
}

function ask(form, said) {
  const field = form.elements[said.field];
  say("");
  form.querySelector(".asked")?.remove();
  box(field, "asked", `${said.trouble} It says now: “${said.theirs ?? "its own words again"}”.`, {
    "Write mine over it": () => tell(form, said.field, said.told),
    "Keep theirs": async () => {
      const theirs = said.theirs ?? (await ownWords(form, said.field));
      form.elements[`was_${said.field}`].value = theirs;
      tell(form, said.field, said.told);
      put(field, theirs);
    },
  });
  return false;
}
async function ownWords(form, name) {
  const page = await fetchPage();
  const same = page && [...page.querySelectorAll("[data-autosave]")].find((each) => pageOf(each) === pageOf(form));
  return (same ?? form).elements[`was_${name}`].value;
}

// A field may be written over though it has a later row than what was seen: one's own, or one that was told of.
// Whatever else others have changed meanwhile is not on this page.
function tell(form, name, row) {
  let told = form.querySelector(`[data-told=${name}]`);
  if (!told) {
    told = document.createElement("input");
    told.type = "hidden";
    told.name = "told";
    told.dataset.told = name;
    form.append(told);
  }
  told.value = row;
}

function know(seen) {
  if (!seen || seen <= Number(saving.dataset.seen)) return;
  saving.dataset.seen = seen;
  for (const field of document.querySelectorAll("input[name=seen]:not([data-digest])")) field.value = seen;
}

// The desk as it is now, or null where there is none to be had.
async function fetchPage() {
  const answer = await fetch(location.pathname).catch(() => null);
  const page = answer && answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html");
  return page && page.getElementById("saving") ? page : null;
}

async function refresh() {
  // What follows from a change is made by the server: fetch the page and take over what is not written in.
  const page = await fetchPage();
  if (!page) return;
  // What is approved is what was looked at: what others did meanwhile is looked at after the page was loaded anew.
  const own = Number(page.getElementById("saving").dataset.others) <= Number(saving.dataset.seen);
  const looked = (own ? page : document).querySelector("[data-digest]");
  const digest = looked ? looked.value : "";
  for (const live of document.querySelectorAll("[data-live]")) {
    const anew = sameIn(page, live);
    if (anew && !isInUse(live)) live.innerHTML = anew.innerHTML;
  }
  for (const field of document.querySelectorAll("[data-digest]")) if (digest) field.value = digest;
  const [sight, sees] = [document, page].map((each) => each.getElementById("sight"));
  if (sight && sees && sight.dataset.digestOf !== sees.dataset.digestOf) {
    sight.dataset.digestOf = sees.dataset.digestOf;
    sight.src = sight.getAttribute("src");
  }
}
// Others may have moved the stories since, so a part of one is found by its story.
function sameIn(page, live) {
  const card = live.closest(".card");
  if (!card) return page.getElementById(live.id);
  const same = [...page.querySelectorAll(".card")].find((each) => each.dataset.page === card.dataset.page);
  return same?.querySelector(`[data-live=${live.dataset.live}]`);
}
function isInUse(part) {
  const touched = [...part.querySelectorAll("input")].some(
    (field) => field.value !== field.defaultValue || field.checked !== field.defaultChecked,
  );
  return touched || part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

async function saveAll() {
  const done = await Promise.all(forms.map((form) => save(form)));
  return done.every(Boolean);
}

for (const form of forms) {
  restore(form);
  for (const field of fields(form)) {
    const best = Number(field.dataset.best || 0);
    if (best) {
      const count = document.createElement("span");
      count.className = "count";
      count.setAttribute("aria-hidden", "true");
      const tell = () => {
        count.textContent = `${[...field.value].length} of ${best}`;
        count.classList.toggle("over", [...field.value].length > best);
      };
      document.querySelector(`label[for=${field.id}]`).prepend(count);
      field.addEventListener("input", tell);
      tell();
    }
    field.addEventListener("input", () => {
      remember(form);
      later(form);
    });
    field.addEventListener("blur", () => changed(form).length && later(form, 0));
  }
  form.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.name === "what") return;
    event.preventDefault();
    save(form);
  });
}

// Whatever else is pressed waits until all that was written is saved.
let passing = false;
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (event.defaultPrevented || passing || !forms.some((each) => changed(each).length || underway.has(each))) return;
  event.preventDefault();
  const pressed = event.submitter;
  const card = form.closest(".card");
  if (!(await saveAll())) return;
  const button = pressed.isConnected ? pressed : buttonLike(pressed, form.action, card ?? document);
  if (!button) {
    say("The page has changed: look again and press it again.", true);
    return;
  }
  passing = true;
  button.form.requestSubmit(button);
  passing = false;
});
// Not every browser gives a pressed button the focus, so its part may have been made anew meanwhile. What it then
// approves is no other: `refresh` gives it the digest of what was looked at, or of what was written here.
function buttonLike(pressed, action, where) {
  return [...where.querySelectorAll("button")].find(
    (each) =>
      each.form?.action === action &&
      each.name === pressed.name &&
      each.value === pressed.value &&
      each.textContent === pressed.textContent,
  );
}
addEventListener("pagehide", () => {
  for (const form of forms) {
    if (!changed(form).length || isAsked(form) || !form.checkValidity()) continue;
    post(form, new URLSearchParams(new FormData(form)), { keepalive: true });
  }
});

// Who else is here, and what they have changed since this page was loaded.
async function look() {
  if (document.visibilityState !== "visible") return;
  const answer = await fetch(`/newsroom/desk/${slot}/news?after=${saving.dataset.seen}`, {
    headers: { Accept: "application/json" },
  });
  if (answer.status === 401) {
    isOut = true;
    say("You are signed out. Sign in on another page: what you write is kept here until then.", true);
  } else if (answer.ok) {
    // Something may be saved while the token is fetched, and that it was is not to be wiped away.
    if (isOut && (await takeToken()) && isOut) {
      isOut = false;
      say("");
    }
    tellOfOthers(await answer.json());
  }
}
function lookAgain() {
  const again = () => setTimeout(lookAgain, LOOK);
  look().then(again, again);
}
function tellOfOthers(news) {
  const others = document.getElementById("others");
  const here = document.getElementById("here");
  here.hidden = !news.here.length;
  here.textContent = news.here.length ? `${news.here.join(" and ")} ${news.here.length === 1 ? "is" : "are"} at this desk too.` : "";
  if (!news.others.length || others.dataset.told === String(news.others.length)) return;
  others.dataset.told = news.others.length;
  const last = news.others[news.others.length - 1];
  others.textContent = `${last.by}, ${last.at}: ${last.what}. `;
  const see = document.createElement("a");
  see.href = location.pathname;
  see.textContent = "Load the page to see it";
  others.append(see, ".");
  others.hidden = false;
}
setTimeout(lookAgain, LOOK);
