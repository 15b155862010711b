// A real OpenID provider for the tests: npm's certified oidc-provider on a free port of the loopback interface.
//
//   node provider.mjs MODULES_FOLDER PORT_OF_THE_FIXED_CLIENT
//
// Prints one line of JSON when it is ready, and ends with its stdin, so that it never outlives the tests.
// Anybody logs in with any name, which becomes `sub`; the forms are those that oidc-provider has for development.
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, fixedPort] = process.argv.slice(2);
const entry = pathToFileURL(path.join(path.resolve(modules), "oidc-provider", "lib", "index.js"));
const { Provider } = await import(entry);

const PLATFORM = "https://platform.example";
const client = (id, more) => ({
  client_id: id,
  token_endpoint_auth_method: "none",
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  ...more,
});

const configuration = {
  clients: [
    // Any port of the loopback interface, as RFC 8252 has it.
    client("native", { application_type: "native", redirect_uris: ["http://localhost:51562/callback"] }),
    // The same, with access tokens that are JWTs for the platform.
    client("jwt", { application_type: "native", redirect_uris: ["http://localhost:51562/callback"] }),
    // One port and no other.
    client("fixed", { application_type: "web", redirect_uris: [`http://localhost:${fixedPort}/callback`] }),
  ],
  scopes: ["openid", "offline_access", "profile"],
  claims: { openid: ["sub"], profile: ["preferred_username", "email"] },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: `name-of-${id}`, email: `${id}@example.test` }),
  }),
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: 3600, IdToken: 3600, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 3600 },
  cookies: { keys: ["only for tests"] },
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, known) => (known.clientId === "jwt" ? PLATFORM : undefined),
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "profile",
        audience: PLATFORM,
        accessTokenFormat: "jwt",
        accessTokenTTL: 3600,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
};

// What was asked of the provider, for tests that count. GET /counts tells.
const counts = { refreshed: 0, refused: 0, revoked: 0, logged_in: 0 };
let handle = (request, response) => response.writeHead(503).end();
const server = http.createServer((request, response) => {
  if (request.url !== "/counts") return handle(request, response);
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(counts));
});
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.on("grant.success", (ctx) => {
    counts[ctx.oidc.params.grant_type === "refresh_token" ? "refreshed" : "logged_in"] += 1;
  });
  provider.on("grant.error", () => (counts.refused += 1));
  provider.on("grant.revoked", () => (counts.revoked += 1));
  handle = provider.callback();
  console.log(JSON.stringify({ issuer }));
});

process.stdin.on("end", () => process.exit(0)).resume();
