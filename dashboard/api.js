// What the page asks of the API it came from. Every failure is an ApiError with a text for people.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status; // 0: no answer at all
    this.code = code;
  }
}

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
  if (!response.ok) throw await failure(response);
  return response;
}

export async function getJson(path, signal) {
  return (await ask(path, { signal })).json();
}

export async function getText(path, signal) {
  return (await ask(path, { signal })).text();
}

// The header tells a page of ours from a form of somebody else's.
export async function postJson(path, body) {
  const headers = { "Content-Type": "application/json", "X-Tailrace-Page": "1" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) })).json();
}

export function query(parameters) {
  const used = Object.entries(parameters).filter(
    ([, v]) => v !== undefined && v !== null && v !== "",
  );
  return used.length ? "?" + new URLSearchParams(used).toString() : "";
}
