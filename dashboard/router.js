// The address after #: a path and its parameters. All that a view shows can be linked to.
import { useEffect, useState } from "preact/hooks";
import { query as search } from "./api.js";

// What cannot be decoded is taken as it stands.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function parse(hash) {
  const [path, text = ""] = hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(text)) };
}

export function link(parts, query = {}) {
  return "#/" + parts.map(encodeURIComponent).join("/") + search(query);
}

// Changes parameters of the present address; `replace` leaves no step for the back button.
export function setQuery(change, replace = false) {
  const { parts, query } = parse(location.hash);
  const next = link(parts, { ...query, ...change });
  if (next === location.hash) return;
  if (replace) {
    history.replaceState(null, "", next);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = next;
  }
}

export function usePlace() {
  const [place, setPlace] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setPlace(parse(location.hash));
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return place;
}
