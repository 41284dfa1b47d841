// The shell: which view the address names, the keys, help.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { html, useApi } from "./parts.js";
import { Login, logOut, useLogin } from "./login.js";
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
  ["← ↑ ↓ →", "choose a frame or a segment, in a drawing that has the focus"],
  ["g r", "routes"],
  ["g i", "incidents"],
  ["g l", "live"],
  ["g h", "health"],
  ["?", "this help"],
  ["Esc", "close, leave the search; in a flame graph: all frames"],
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
      return html`<${Incidents} query=${query} />`;
    case "incident":
      return html`<${Incident} id=${id} query=${query} key=${id} />`;
    case "live":
      return html`<${Live} query=${query} />`;
    case "health":
      return html`<${Health} tab=${id} query=${query} />`;
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
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.querySelector("button").focus();
    return () => before?.focus?.();
  }, []);
  return html`<div class="help" role="dialog" aria-label="Keys" ref=${box}>
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

function Place({ of: [name, label], here, firing }) {
  const current = name === here ? "page" : undefined;
  const told = name === "incidents" && firing > 0;
  return html`<a href=${`#/${name}`} aria-current=${current}
    >${label}
    ${told && html`<span class="count" aria-label=${`${firing} firing`}>${firing}</span>`}</a
  >`;
}

// How many incidents are firing: seen from every page.
function useFiring(ask) {
  const answer = useApi(ask ? "/api/v1/incidents?status=firing&limit=100" : null, 15000);
  return answer.data?.incidents.length ?? 0;
}

function App() {
  const place = usePlace();
  const [help, setHelp] = useState(false);
  const login = useLogin();
  const firing = useFiring(login.in);
  useKeys(setHelp);
  const here =
    { route: "routes", request: "routes", incident: "incidents" }[place.parts[0]] ??
    place.parts[0] ??
    "routes";
  useEffect(() => {
    const what = place.parts.join(" ") || "routes";
    document.title = `${firing ? `(${firing}) ` : ""}tailrace: ${what}`;
  }, [place, firing]);
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
        ${PLACES.map((p) => html`<${Place} of=${p} here=${here} firing=${firing} />`)}
      </nav>
      ${
        login.needed &&
        login.in &&
        html`<button onClick=${() => logOut(login.look)}>Log out</button>`
      }
      <button class="keys" onClick=${() => setHelp(true)} aria-label="Keys">?</button>
    </header>
    <main id="main" tabindex="-1">
      ${login.in ? html`<${View} place=${place} />` : html`<${Login} look=${login.look} />`}
    </main>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
    <footer class="quiet">
      Times are UTC. Durations are measured, those with ~ estimated from samples.${" "}
      <a href="/licences.txt">Licences</a>
    </footer>`;
}

render(html`<${App} />`, document.getElementById("app"));
