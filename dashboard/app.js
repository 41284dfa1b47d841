import { render } from "preact";
import htm from "htm";
import { h } from "preact";

const html = htm.bind(h);
render(html`<main>tailrace</main>`, document.getElementById("app"));
