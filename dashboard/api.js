// What the page asks of the API it came from. Every failure is an ApiError with a text for people.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status; // 0: no answer at all
    this.code = code;
  }
}

// Somebody has to log in (again): the shell listens.
export const OUT = "tailrace-out";

async function failure(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message);
  } catch {
    return new ApiError(response.status, "unknown", `status ${response.status}`);
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "unreachable", "the gateway's control listener does not answer");
  }
  if (response.status === 401 && path !== "/login") window.dispatchEvent(new Event(OUT));
  if (!response.ok) throw await failure(response);
  return response;
}

export async function getJson(path, signal) {
  return (await ask(path, { signal })).json();
}

export async function getText(path, signal) {
  return (await ask(path, { signal })).text();
}

// Events of a stream, until the returned function is called. on.events maps names of events to
// what takes their data; on.open: it (again) streams; on.failed: an ApiError, and it may come back
// by itself.
export function stream(path, on) {
  let source,
    timer,
    ended = false;
  const why = async () => {
    const abort = new AbortController();
    try {
      await ask(path, { signal: abort.signal });
      abort.abort();
      return new ApiError(0, "unreachable", "the stream ended");
    } catch (error) {
      return error;
    }
  };
  const begin = () => {
    source = new EventSource(path);
    source.onopen = () => on.open?.();
    source.onerror = async () => {
      if (source.readyState !== EventSource.CLOSED) {
        on.failed?.(new ApiError(0, "unreachable", "the stream broke off"));
        return;
      }
      const error = await why(); // an EventSource does not say
      if (ended) return;
      on.failed?.(error);
      timer = setTimeout(begin, 5000);
    };
    for (const [name, take] of Object.entries(on.events))
      source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  };
  begin();
  return () => {
    ended = true;
    clearTimeout(timer);
    source.close();
  };
}

// The header tells a page of ours from a form of somebody else's.
export async function postJson(path, body) {
  const headers = { "Content-Type": "application/json", "X-Tailrace-Page": "1" };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  return response.status === 204 ? null : response.json();
}

// Of an address, the API's or the page's own: what is empty is left out.
export function query(parameters) {
  const used = Object.entries(parameters).filter(
    ([, v]) => v !== undefined && v !== null && v !== "",
  );
  return used.length ? "?" + new URLSearchParams(used).toString() : "";
}
