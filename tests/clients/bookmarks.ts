// Use the types that openapi-typescript generated.
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Bookmark = components["schemas"]["BookmarkRead"];

const account = { email: "typescript@example.com", password: "of-this-test-alone" };

function check(condition: unknown, message: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(message));
}

async function logInAsNewAccount(url: string): Promise<Client<paths>> {
  const anonymous = createClient<paths>({ baseUrl: url });
  await anonymous.POST("/accounts", { body: account });
  const { data, error } = await anonymous.POST("/accounts/login", {
    body: { grant_type: "password", username: account.email, password: account.password },
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  check(data, error);
  return createClient<paths>({
    baseUrl: url,
    headers: { Authorization: `Bearer ${data.access_token}` },
  });
}

async function create(client: Client<paths>, name: string): Promise<Bookmark> {
  const body = { url: `https://${name}.example/typescript`, title: name, tags: [] };
  const { data, error } = await client.POST("/bookmarks", { body });
  check(data, error);
  return data;
}

async function pageThrough(client: Client<paths>): Promise<string[]> {
  const ids: string[] = [];
  let cursor: string | null = null;
  do {
    const query: { limit: number; cursor: string | null } = { limit: 1, cursor };
    const { data, error } = await client.GET("/bookmarks", { params: { query } });
    check(data, error);
    ids.push(...data.items.map((item) => item.id));
    cursor = data.next_cursor;
  } while (cursor !== null);
  return ids;
}

function replace(client: Client<paths>, bookmark: Bookmark, etag: string) {
  return client.PUT("/bookmarks/{bookmark_id}", {
    params: { path: { bookmark_id: bookmark.id }, header: { "If-Match": etag } },
    body: { url: bookmark.url, title: "changed", tags: [] },
  });
}

// Calls that the compiler must refuse: it reports an expected error that does not occur.
export function withoutPrecondition(client: Client<paths>, bookmark: Bookmark) {
  const path = { bookmark_id: bookmark.id };
  client.PUT("/bookmarks/{bookmark_id}", {
    // @ts-expect-error If-Match is missing
    params: { path },
    body: { url: bookmark.url, title: "changed", tags: [] },
  });
  // @ts-expect-error If-Match is missing
  client.DELETE("/bookmarks/{bookmark_id}", { params: { path } });
}

const client = await logInAsNewAccount(process.argv[2] ?? "");
const first = await create(client, "first");
const second = await create(client, "second");
const ids = await pageThrough(client);
check(ids[0] === second.id && ids[1] === first.id, ids);

const path = { bookmark_id: first.id };
const read = await client.GET("/bookmarks/{bookmark_id}", { params: { path } });
const etag = read.response.headers.get("ETag") ?? "";
const replaced = await replace(client, first, etag);
check(replaced.data?.title === "changed" && replaced.data.version === 2, replaced.error);
const refused = await replace(client, first, etag);
check(refused.error?.status === 412, refused.error);
check(refused.error.type === "urn:problem:bookmark-changed", refused.error);

const header = { "If-Match": '"2"' };
const deleted = await client.DELETE("/bookmarks/{bookmark_id}", { params: { path, header } });
check(deleted.response.status === 204, deleted.error);
const missing = await client.GET("/bookmarks/{bookmark_id}", { params: { path } });
check(missing.error?.status === 404, missing.error);
