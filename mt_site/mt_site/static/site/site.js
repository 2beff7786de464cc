"use strict";

const TURN = 3000; // one rotation of the spinner in ms, as in the stylesheet
const NOTICE = 10000; // how long a message stays, in ms
const byId = (id) => document.getElementById(id);
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
const lists = { hospitals: [], patients: [], reports: [] };
const shown = {}; // what each panel shows now: the words that were searched for, and the JSON text
const waitingFor = []; // names that were sent and have not been seen in the list yet

// --- building elements; text is always set as text ---

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function drawing(paths) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 48 48");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = `<circle cx="24" cy="24" r="23"/>${paths}`;
  return svg;
}

function blank(paths, title, text, label, action) {
  const button = make("button", "button", label);
  button.type = "button";
  button.addEventListener("click", action);
  return make("div", "blank", drawing(paths), make("b", "", title), make("p", "", text), button);
}

const PERSON = '<circle cx="24" cy="19" r="6"/><path d="M12 36c1-7 6-10 12-10s11 3 12 10"/>';
const HOUSE = '<path d="M14 36V16h20v20M11 36h26M24 19v8M20 23h8M21 36v-5h6v5"/>';
const SHEET = '<path d="M15 11h13l6 6v20H15zM28 11v6h6M20 24h9M20 30h9"/>';
const WARNING = '<path stroke-width="2.8" d="M24 14v13M24 34v.1"/>';

function hospitalTile(hospital) {
  const beds = make("span", "beds", make("b", "", String(hospital.beds)), hospital.beds === 1 ? " bed" : " beds");
  const foot = make("div", "foot", beds);
  if (hospital.specialty) foot.prepend(make("span", "chip", hospital.specialty));
  return make("li", "tile", make("h2", "", hospital.name), make("p", "", hospital.city), foot);
}

function initials(name) {
  const words = name.trim().split(/\s+/);
  const ends = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0]];
  return ends.map((word) => [...word][0] || "").join("").toUpperCase();
}

function patientRow(patient) {
  const avatar = make("span", "avatar", initials(patient.name));
  avatar.setAttribute("aria-hidden", "true");
  const details = [patient.age === null ? "" : `Age ${patient.age}`, patient.hospital || "Not assigned"];
  const who = make("div", "who", make("b", "", patient.name), make("span", "", details.filter(Boolean).join(" · ")));
  const time = make("time", "", new Date(patient.added_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }));
  time.dateTime = patient.added_at;
  return make("li", arrived(patient) ? "row fresh" : "row", avatar, who, time);
}

function reportRow(report) {
  const who = make("div", "who", make("b", "", report.title), make("span", "", `${report.ward} · ${report.text}`));
  const time = make("time", "", new Date(report.written_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }));
  time.dateTime = report.written_at;
  const avatar = make("span", "avatar", initials(report.ward));
  avatar.setAttribute("aria-hidden", "true");
  return make("li", "row", avatar, who, time);
}

// True for a patient that an earlier list did not have.
function arrived(patient) {
  return !words() && shown.patients !== undefined && !lists.patients.some((old) => old.id === patient.id);
}

// --- the panels ---

const panels = {
  hospitals: {
    render: (list) => make("ul", "grid", ...list.map(hospitalTile)),
    empty: () => blank(HOUSE, "No hospitals yet", "Hospitals are entered by the staff.", "Check again", () => load("hospitals")),
  },
  patients: {
    render: (list) => make("ul", "rows", ...list.map(patientRow)),
    empty: () => words() ? blank(PERSON, "Nobody found", `No patient here matches “${words()}”.`, "Show all patients", clearSearch) : blank(PERSON, "No patients yet", "The first patient that is added here will show up by itself.", "Add the first patient", openDialog),
  },
  reports: {
    render: (list) => make("ul", "rows", ...list.map(reportRow)),
    empty: () => blank(SHEET, "No reports yet", "Reports are written by the wards.", "Check again", () => load("reports")),
  },
};
const after = { hospitals: afterHospitals, patients: afterPatients, reports: () => {} };

async function load(name) {
  const panel = byId(`panel-${name}`);
  if (panel.dataset.loading) return;
  panel.dataset.loading = "yes";
  const asked = name === "patients" ? words() : "";
  try {
    const response = await fetch(`/api/${name}/${asked && `?q=${encodeURIComponent(asked)}`}`, { cache: "no-store", headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    show(name, panel, await response.text(), asked);
  } catch (error) {
    fail(name, panel, error);
  } finally {
    delete panel.dataset.loading;
    panel.setAttribute("aria-busy", "false");
    if (name === "patients" && asked !== words()) load(name); // more was typed meanwhile
  }
}

function show(name, panel, text, asked) {
  if (panel.dataset.failed) { delete panel.dataset.failed; notify(""); }
  const now = `${asked}|${text}`;
  if (shown[name] === now) return; // an unchanged list keeps focus and selection
  const list = JSON.parse(text);
  panel.replaceChildren(list.length ? panels[name].render(list) : panels[name].empty());
  if (!asked) {
    after[name](list);
    lists[name] = list;
  }
  shown[name] = now;
}

function fail(name, panel, error) {
  panel.dataset.failed = "yes";
  if (shown[name] !== undefined) { // what was shown last is better than nothing
    notify(`The ${name} could not be refreshed; this is the last known list.`, true);
    return;
  }
  const reason = error instanceof TypeError ? "The server does not answer." : error.message;
  panel.replaceChildren(blank(WARNING, `The ${name} could not be loaded`, reason, "Try again", () => load(name)));
}

function afterHospitals(list) {
  stat("hospitals", list.length);
  stat("beds", list.reduce((sum, hospital) => sum + hospital.beds, 0));
  const options = list.map((hospital) => new Option(hospital.name, hospital.id));
  byId("hospital").replaceChildren(new Option("Not assigned", ""), ...options);
}

function afterPatients(list) {
  stat("patients", list.length);
  const mine = list.filter(arrived).map((patient) => patient.name).filter((name) => waitingFor.includes(name));
  for (const name of mine) waitingFor.splice(waitingFor.indexOf(name), 1);
  if (mine.length) notify(`Added: ${mine.join(", ")}.`);
}

function stat(name, value) {
  document.querySelector(`[data-stat="${name}"]`).textContent = value.toLocaleString("en-GB");
}

let noticeTimer;

function notify(text, isError = false) {
  const notice = byId("notice");
  clearTimeout(noticeTimer);
  if (text && !isError) noticeTimer = setTimeout(notify, NOTICE, "");
  notice.textContent = text;
  notice.hidden = !text;
  notice.classList.toggle("error", isError);
}

// --- the search, where the site has one ---

const words = () => byId("search")?.value.trim() || "";

function clearSearch() {
  byId("search").value = "";
  load("patients");
}

byId("search")?.addEventListener("input", () => {
  select(byId("tab-patients"));
  load("patients");
});

// --- tabs ---

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab, focus = false) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", String(chosen));
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
}

function onTabKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.indexOf(event.target), End: tabs.length - 1 - tabs.indexOf(event.target) }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  select(tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length], true);
}

// --- the spinner: every full turn refreshes the Patients tab ---

const refreshing = () => byId("refresh").getAttribute("aria-pressed") === "true";

function onTurn() {
  if (refreshing() && !document.hidden) load("patients");
}

// Without motion there is no rotation to wait for: a timer keeps its rhythm.
setInterval(() => { if (stillness.matches) onTurn(); }, TURN);
byId("spinner").addEventListener("animationiteration", onTurn);
byId("refresh").addEventListener("click", (event) => {
  event.currentTarget.setAttribute("aria-pressed", String(!refreshing()));
});

// --- the dialog ---

const dialog = byId("dialog");
const form = byId("form");

function openDialog() {
  form.reset();
  problems({});
  dialog.showModal();
  byId("name").focus();
}

function problems(fields, message = "") {
  for (const input of form.querySelectorAll("input, select")) {
    const texts = fields[input.name] || [];
    byId(`${input.name}-error`).textContent = texts.join(" ");
    if (texts.length) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
  byId("form-error").textContent = message;
  byId("form-error").hidden = !message;
  form.querySelector("[aria-invalid]")?.focus();
}

function entered() {
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  return { name: byId("name").value.trim(), age: number("age"), hospital: number("hospital") };
}

function objections(patient) {
  const fields = {};
  if (!patient.name) fields.name = ["Enter the patient's name."];
  if (!byId("age").validity.valid) fields.age = ["Enter a whole number from 0 to 130."];
  return fields;
}

async function send(patient) {
  const token = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] || "";
  const response = await fetch("/api/patients/", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token },
    body: JSON.stringify(patient),
  });
  const isJson = (response.headers.get("Content-Type") || "").includes("json");
  return { ok: response.ok, answer: isJson ? await response.json() : { error: `The server answered ${response.status}.` } };
}

async function submit(event) {
  event.preventDefault();
  const patient = entered();
  const faults = objections(patient);
  problems(faults);
  if (Object.keys(faults).length) return;
  busy(true);
  waitingFor.push(patient.name); // before it is sent: the list may show it before the server's answer is here
  try {
    const { ok, answer } = await send(patient);
    if (ok) accepted(answer);
    else refused(patient, answer.fields || {}, answer.error);
  } catch {
    refused(patient, {}, "The server does not answer. Please try again.");
  } finally {
    busy(false);
  }
}

function busy(yes) {
  byId("submit").disabled = yes;
  byId("submit").textContent = yes ? "Adding…" : "Add patient";
}

function refused(patient, fields, message) {
  if (waitingFor.includes(patient.name)) waitingFor.splice(waitingFor.indexOf(patient.name), 1);
  problems(fields, message);
}

function accepted(answer) {
  dialog.close();
  stat("added", answer.patients_added);
  select(byId("tab-patients"));
  if (!waitingFor.includes(answer.name)) return; // it is there already, and said so
  notify(`${answer.name} was sent; the list shows it after the next full turn of the spinner.`);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", onTabKey);
}
byId("add-patient").addEventListener("click", openDialog);
byId("cancel").addEventListener("click", () => dialog.close());
form.addEventListener("submit", submit);
for (const name of Object.keys(panels)) if (byId(`panel-${name}`)) load(name);
