// The shell: which view the address names, the keys, help.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { html } from "./parts.js";
import { usePlace } from "./router.js";
import { Routes } from "./routes.js";
import { Route } from "./route.js";
import { Request } from "./request.js";
import { Incident, Incidents } from "./incidents.js";
import { Live } from "./live.js";
import { Health } from "./health.js";

const PLACES = [
  ["routes", "Routes"],
  ["incidents", "Incidents"],
  ["live", "Live"],
  ["health", "Health"],
];
const KEYS = [
  ["/", "search"],
  ["j, k", "next, previous row"],
  ["Enter", "open the row"],
  ["g r", "routes"],
  ["g i", "incidents"],
  ["g l", "live"],
  ["g h", "health"],
  ["?", "this help"],
  ["Esc", "close, leave the search"],
];

function View({ place }) {
  const [name = "routes", id] = place.parts;
  const { query } = place;
  switch (name) {
    case "routes":
      return html`<${Routes} query=${query} />`;
    case "route":
      return html`<${Route} id=${id} query=${query} key=${id} />`;
    case "request":
      return html`<${Request} trace=${id} query=${query} key=${id} />`;
    case "incidents":
      return html`<${Incidents} />`;
    case "incident":
      return html`<${Incident} id=${id} key=${id} />`;
    case "live":
      return html`<${Live} query=${query} />`;
    case "health":
      return html`<${Health} query=${query} />`;
    default:
      return html`<div class="note">
        <h1>No such page</h1>
        <p><a href="#/routes">Routes</a></p>
      </div>`;
  }
}

function goTo(key) {
  const found = PLACES.find(([name]) => name[0] === key);
  if (found) location.hash = `#/${found[0]}`;
}

function useKeys(setHelp) {
  useEffect(() => {
    let before = "";
    const pressed = (event) => {
      const typing = event.target.matches("input, select, textarea");
      if (event.key === "Escape") {
        setHelp(false);
        if (typing) event.target.blur();
      }
      if (typing || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === "/") {
        document.getElementById("search")?.focus();
        event.preventDefault();
      } else if (event.key === "?") {
        setHelp((on) => !on);
      } else if (before === "g") {
        goTo(event.key);
      }
      before = event.key;
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
}

function Help({ close }) {
  return html`<div class="help" role="dialog" aria-label="Keys">
    <h2>Keys</h2>
    <dl>
      ${KEYS.map(
        ([key, what]) =>
          html`<dt><kbd>${key}</kbd></dt>
            <dd>${what}</dd>`,
      )}
    </dl>
    <button onClick=${close}>Close</button>
  </div>`;
}

function Place({ of: [name, label], here }) {
  const current = name === here ? "page" : undefined;
  return html`<a href=${`#/${name}`} aria-current=${current}>${label}</a>`;
}

function App() {
  const place = usePlace();
  const [help, setHelp] = useState(false);
  useKeys(setHelp);
  const here =
    { route: "routes", request: "routes", incident: "incidents" }[place.parts[0]] ??
    place.parts[0] ??
    "routes";
  useEffect(() => {
    document.title = `tailrace: ${place.parts.join(" ") || "routes"}`;
  }, [place]);
  return html`<a
      class="skip"
      href="#main"
      onClick=${(e) => {
        e.preventDefault();
        document.getElementById("main").focus();
      }}
      >To the content</a
    >
    <header>
      <strong class="brand">tailrace</strong>
      <nav aria-label="Pages">
        ${PLACES.map((place) => html`<${Place} of=${place} here=${here} />`)}
      </nav>
      <button class="keys" onClick=${() => setHelp(true)} aria-label="Keys">?</button>
    </header>
    <main id="main" tabindex="-1"><${View} place=${place} /></main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
    <footer class="quiet">
      Times are UTC. Durations are measured, those with ~ estimated from samples.
    </footer>`;
}

render(html`<${App} />`, document.getElementById("app"));
