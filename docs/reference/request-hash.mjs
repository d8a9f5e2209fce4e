// The request hash of docs/reference/request-hash.md, in JavaScript without dependencies (Node.js 18 or newer).
//
//   node request-hash.mjs request-hash.md     checks every vector of the page; the exit code is 1 if one differs
//   node request-hash.mjs < requests.json     for each request of a JSON array, its canonical JSON and its hash
//
// To use it from other code: import { canonicalJson, requestHash } from "./request-hash.mjs".

import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const given = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
const sorted = (fields) => Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)));

export function canonicalJson(request) {
  const { rights, priority, execution_expires_after, labels, ...rest } = given(request);
  const references = (rest.references ?? []).map(given);
  const fields = {
    ratio: references.length ? "adaptive" : "16:9",
    resolution: rest.draft_of === undefined ? "720p" : "1080p", duration: 5,
    generate_audio: false, watermark: false, return_last_frame: false, take: 1,
    ...rest,
    references: references.map(({ role, asset_id, url }) =>
      asset_id === undefined ? { role, url } : { asset_id, role }),
    v: 1,
  };
  if (fields.prompt !== undefined) {
    const folded = fields.prompt.normalize("NFC").replace(/[\u0009-\u000d\u0020\u00a0\u3000]+/g, " ");
    fields.prompt = folded.replace(/^ | $/g, "");
  }
  return JSON.stringify(sorted(fields));
}

export const requestHash = (request) => createHash("sha256").update(canonicalJson(request), "utf8").digest("hex");

function check(page) {
  const vectors = JSON.parse(/^```json\n([^]*?)^```/m.exec(page)[1]);
  const wrong = vectors.filter(({ request, canonical, sha256 }) =>
    canonicalJson(request) !== canonical || requestHash(request) !== sha256);
  for (const { name, request } of wrong) console.log(`differs: ${name}\n  ${canonicalJson(request)}`);
  console.log(`${vectors.length - wrong.length} of ${vectors.length} vectors are right`);
  return wrong.length === 0 && vectors.length > 0;
}

if (process.argv[1] && realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url))) {
  if (process.argv[2]) {
    process.exitCode = check(readFileSync(process.argv[2], "utf8")) ? 0 : 1;
  } else {
    const requests = JSON.parse(readFileSync(0, "utf8"));
    const hashed = requests.map((request) => ({ canonical: canonicalJson(request), sha256: requestHash(request) }));
    console.log(JSON.stringify(hashed, null, 2));
  }
}
